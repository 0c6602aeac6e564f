"""SAEs of a base model in its instruction-tuned model, against SAEs of that.

Gemma Scope (arXiv 2408.05147), figures 8 and 19 to 23: in the instruction-tuned
9B, SAEs of the base model have almost the delta loss of SAEs that were trained
there, and a visibly higher FVU; activations rescaled to the norm that the SAEs
know lower L0 and leave the frontier where it is. Shown: the same for the
residual stream of the embedded model, finetuned to say what a function does
(`finetune_nano.py`), on such chats about held-out modules, user's and model's
turn together; the paper's text are answers that the model sampled. As a
control, the base model's SAEs in the base model, on the same chats.

  python -m experiments.figures.scope_transfer --scale=nano
"""

import sys

from experiments.figures import drawing, panels
from experiments.nano import texts
from experiments.suites import command, suites
from jumprelu.release import plot_style

_LABELS = {
    'chat': 'trained on the chat model',
    'base': 'trained on the base model',
    'base_rescaled': 'the same, rescaled',
    'at_home': 'the same in the base model',
}
_COLUMNS = (
    'model', 'site', 'width', 'sparsity_coefficient', 'seed', 'l0', 'fvu',
    'delta_loss', 'delta_loss_stderr', 'loss_clean', 'loss_recovered',
    'gamma', 'tokens_evaluated', 'tokens_delta_loss',
)  # fmt: skip


def needs(scale):
  """The base model's suite and the chat model's, both read on chats."""
  base, chat = suites.layer(scale, scale.layer), suites.chat(scale)
  text = {
      'data': texts.needed('chats', scale.text_characters),
      'corpus.wrap': 'chat',
      'corpus.held_out_percent': 80,
      'corpus.max_tokens': 0,
  }
  there = text | {'model': suites.chat_model(scale)}

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
      reading('base', base, there),
      reading('base_rescaled', base, there, scales_of=chat),
      reading('at_home', base, text),
  )


def table(results):
  """A row a kind of SAE and member."""
  rows = drawing.of_members(results, *_COLUMNS, origin='saes')
  for row in rows:
    row['saes'] = row['saes'].removeprefix('transfer_')
  return rows


def figure(rows):
  """Delta loss and FVU against L0, a curve a kind of SAE."""
  fig, axes = drawing.panels(1, 2, size=(3.8, 3.3))
  for axis, metric in zip(axes[0], ('delta_loss', 'fvu'), strict=True):
    styles = {'at_home': {'linestyle': ':'}}
    panels.curves(
        axis, rows, metric, column='saes', labels=_LABELS, styles=styles
    )
    plot_style.log_axis(axis, 'x')
    axis.set(xlabel=drawing.LABELS['l0'], ylabel=drawing.LABELS[metric])
  drawing.legend(axes[0, 1])
  return fig


if __name__ == '__main__':
  sys.exit(command.figure_main(__file__))
