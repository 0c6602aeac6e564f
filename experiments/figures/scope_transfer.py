"""Base-model SAEs in the instruction-tuned model, against SAEs trained on it.

Gemma Scope (arXiv 2408.05147), figures 8 and 19 to 23. In the paper, SAEs of
the base model have almost the same delta loss in the instruction-tuned 9B model
as SAEs trained on it, and a visibly higher FVU. Rescaling activations to the
norm of the SAEs' training data lowers L0, but delta loss at an L0 stays the
same. The figure shows this comparison for the residual stream of the embedded
model, finetuned to describe functions (`finetune_nano.py`). The text consists
of chats about held-out modules, with the messages of user and model; the paper
uses answers sampled from the model. The control is the base model's SAEs in the
base model, on the same chats.

  python -m experiments.figures.scope_transfer --scale=nano
"""

import sys

from experiments.figures import axes as axes_lib
from experiments.figures import captions, drawing, panels
from experiments.nano import texts
from experiments.suites import command, suites
from jumprelu.plots import plot_style, sheets

_METRICS = ('delta_loss', 'fvu')
_LABELS = {
    'chat': 'SAEs of the chat model, in the chat model',
    'base': 'SAEs of the base model, in the chat model',
    'base_rescaled': 'SAEs of the base model, in the chat model, rescaled',
    'at_home': 'SAEs of the base model, in the base model',
}
_COLUMNS = (
    'model', 'site', 'width', 'sparsity_coefficient', 'seed', 'l0', 'fvu',
    'delta_loss', 'delta_loss_stderr', 'loss_clean', 'loss_recovered',
    'gamma', 'tokens_evaluated', 'tokens_delta_loss',
)  # fmt: skip


def needs(scale):
  """Returns readings, on chats, of the base and the chat model's suites."""
  base, chat = suites.layer(scale, scale.layer), suites.chat(scale)
  text = {
      'data': texts.needed('chats', scale.text_characters),
      'corpus.wrap': 'chat',
      'corpus.held_out_percent': 80,
      'corpus.max_tokens': 0,
  }
  in_chat_model = text | {'model': suites.chat_model(scale)}

  def reading(name, suite, changes, scales_of=None):
    return suites.Reading(
        f'transfer_{name}',
        suite,
        changes,
        sites=('resid_post',),
        scales_of=scales_of,
    )

  return (
      reading('chat', chat, text),
      reading('base', base, in_chat_model),
      reading('base_rescaled', base, in_chat_model, scales_of=chat),
      reading('at_home', base, text),
  )


def table(results):
  """Returns one row per kind of SAE and member."""
  rows = drawing.of_members(results, *_COLUMNS, origin='saes')
  for row in rows:
    row['saes'] = row['saes'].removeprefix('transfer_')
  return rows


def figure(rows):
  """Returns delta loss and FVU against L0, one curve per kind of SAE."""
  fig, axes = sheets.panels(1, 2, size=(3.8, 3.3))
  for axis, metric in zip(axes[0], _METRICS, strict=True):
    styles = {'at_home': {'linestyle': ':'}}
    panels.curves(
        axis,
        rows,
        metric,
        column='saes',
        labels=_LABELS,
        styles=styles,
        is_nested=True,
    )
    plot_style.log_axis(axis, 'x')
    axis.set_xlabel(drawing.LABELS['l0'])
  axes_lib.style_row(axes[0], _METRICS)
  sheets.legend_below(fig)
  captions.write(fig, rows, _METRICS)
  return fig


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
