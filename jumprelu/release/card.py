"""The README (card) of a release: its members, their metrics and their use."""

from collections.abc import Mapping, Sequence
from typing import Any

from jumprelu.plots import labels
from jumprelu.release import layout, members

_TEMPLATE = """\
---
license: {licence_tag}
tags: [sparse-autoencoder, {tag}interpretability]
---
# Sparse autoencoders on {model}, {layers}

{count} sparse autoencoders (SAEs). Each approximates an activation of the
language model `{model}` by a sparse sum of learned directions.
{layout}{notes}{plot}
| SAE | width | L0 | FVU | delta loss (nats) | loss recovered | dead |
|---|--:|--:|--:|--:|--:|--:|
{table}

L0: active latents per token. FVU: fraction of variance unexplained, pooled over
the evaluation. Delta loss: increase of the model's next-token loss when the
reconstruction replaces the activation, with its standard error over sequences.
Loss recovered: 1 - delta loss / (loss with the site set to zero - clean loss).
Dead: share of latents that never fired{window}. All metrics are
computed on held-out text ({tokens} positions{losses}). A
transcoder reads the MLP's input and reconstructs the MLP's output; its metrics
refer to the output. `results.jsonl` and `results.parquet` hold all metrics.

## Load one

{load}{gain}`x` are raw activations, because the scale used in training
is folded into the arrays. The `config.json` next to each `params.npz` names the
site in the package `jumprelu`, in TransformerLens (unprocessed weights) and in
Hugging Face's transformers. `test_vectors.npz` holds held-out activations `x`
with their `latents` and `reconstruction`.

With the package installed:

```python
from jumprelu import release

sae, params, config = release.load_member('{path}')
latents = sae.encode(params, x)
```

`jumprelu verify DIR` checks all files of the release in `DIR`.

## Training
{command}
Text:

{corpus}

Versions: {versions}.

Licence: {licence}.

## Cite
* S. Rajamanoharan et al., *Jumping Ahead: Improving Reconstruction Fidelity
  with JumpReLU Sparse Autoencoders*, arXiv:2407.14435.
* T. Lieberum et al., *Gemma Scope: Open Sparse Autoencoders Everywhere All At
  Once on Gemma 2*, arXiv:2408.05147.
"""

_SCOPE = """\
File layout, array names and conventions are those of Gemma Scope, so tools for
Gemma Scope can load these files.
"""
_SCOPE_IN_PART = """\
The JumpReLU SAEs have the file layout, array names and conventions of Gemma
Scope, so tools for Gemma Scope can load them. SAEs of other variants are in
`variants/`; the package `jumprelu` loads them.
"""
_NO_SCOPE = """\
The package `jumprelu` loads them, as shown below.
"""

_LOAD = """\
```python
import numpy as np

p = np.load('{path}/params.npz')
pre_acts = x @ p['W_enc'] + p['b_enc']  # x: activations [tokens, model]
latents = np.where(pre_acts > p['threshold'], np.maximum(pre_acts, 0), 0)
reconstruction = latents @ p['W_dec'] + p['b_dec']
```

"""

_PLOT = f"""
![FVU and delta loss against L0]({layout.FRONTIER})
"""

_WITH_GAIN = """\
The transcoder's input is the output of the norm before the MLP, with its gain.

"""
_WITHOUT_GAIN = """\
The transcoder's input is the output of the norm before the MLP without its
gain: divide that output by (1 + the norm's weight).

"""


def render(
    rows: Sequence[Mapping[str, Any]],
    *,
    model: str,
    layers: Sequence[int],
    corpus: Mapping[str, Any],
    command: str,
    licence: str,
    versions: Mapping[str, str],
    input_gain: bool | None,
    has_frontier: bool = False,
) -> str:
  """Returns the card as Markdown.

  Args:
    rows: The members' rows of results, with the columns `path` and `variant`.
    model: The language model's name.
    layers: The layers.
    corpus: The description of the text.
    command: The commands that trained and released the suite; may be empty.
    licence: The SPDX name of the licence.
    versions: Versions by package name.
    input_gain: Whether the input of transcoders includes the norm's gain; None
      without transcoders.
    has_frontier: Whether the release has a plot of the frontier.
  """
  gain = ''
  if input_gain is not None:
    gain = _WITH_GAIN if input_gain else _WITHOUT_GAIN
  # Only JumpReLU members have a threshold per latent, as the sample code needs.
  scope = [row for row in rows if row['variant'] == 'jumprelu']
  layouts = _NO_SCOPE
  if scope:
    layouts = _SCOPE if len(scope) == len(rows) else _SCOPE_IN_PART
  return _TEMPLATE.format(
      tag='jumprelu, ' if scope else '',
      layout=layouts,
      model=model,
      layers=labels.listed('layer', layers),
      count=len(rows),
      table='\n'.join(_table_line(row) for row in rows),
      window=_window(rows),
      tokens=f'{rows[0].get("tokens_evaluated") or 0:,}',
      losses=_loss_tokens(rows[0]),
      path=(scope or rows)[0]['path'],
      load=_LOAD.format(path=scope[0]['path']) if scope else '',
      gain=gain,
      command=f'\n```\n{command}\n```\n' if command else '',
      notes=_notes(rows),
      plot=_PLOT if has_frontier else '',
      corpus='\n'.join(f'* {k}: {_described(v)}' for k, v in corpus.items()),
      versions=', '.join(f'{k} {v}' for k, v in versions.items()),
      licence=licence,
      licence_tag=licence.lower(),
  )


def _window(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns the text about the tokens on which dead latents never fired."""
  windows = [
      row['dead_window_tokens']
      for row in rows
      if row.get('dead_share') is not None and row.get('dead_window_tokens')
  ]
  if windows:
    return f' in {min(windows):,} held-out tokens'
  return ' (–: unknown, because too few held-out tokens were read)'


def _loss_tokens(row: Mapping[str, Any]) -> str:
  """Returns the text about the tokens of the losses; empty if unknown."""
  tokens = row.get('tokens_delta_loss')
  return f'; {tokens:,} for the losses' if tokens else ''


def _notes(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns warnings about unfinished training and skipped steps."""
  stops = {r['path']: r['unfinished'] for r in rows if r.get('unfinished')}
  notes = [
      f'Training of `{path}` is unfinished: {stop}.'
      for path, stop in stops.items()
  ]
  if len(stops) == len(rows) and len(set(stops.values())) == 1:
    notes = [f'Training is unfinished: {stops[rows[0]["path"]]}.']
  for row in rows:
    skipped, steps = row.get('steps_skipped') or 0, row.get('steps') or 0
    if members.is_skipped_notable(skipped, steps=steps):
      notes.append(
          f'`{row["path"]}` skipped {skipped:,} of {steps:,} steps'
          f' ({skipped / steps:.1%}), because its loss or gradients were not'
          ' finite.'
      )
  return ''.join(f'\n**{note}**\n' for note in notes)


def _table_line(row: Mapping[str, Any]) -> str:
  """Returns one member's line of the table."""
  delta = _number(row.get('delta_loss'), '.4f')
  if row.get('delta_loss_stderr') is not None:
    delta += f' ± {row["delta_loss_stderr"]:.4f}'
  cells = [
      f'`{row["path"]}`',
      f'{row["width"]:,}',
      _number(row.get('l0'), '.1f'),
      _number(row.get('fvu'), '.4f'),
      delta,
      _number(row.get('loss_recovered'), '.4f'),
      _number(row.get('dead_share'), '.1%'),
  ]
  return f'| {" | ".join(cells)} |'


def _described(value: Any) -> str:
  """Returns a value in the description of the text, as Markdown."""
  if isinstance(value, Mapping):
    return ', '.join(f'{k} {_described(v)}' for k, v in value.items())
  return f'`{value}`' if isinstance(value, str) else f'{value}'


def _number(value: float | None, spec: str) -> str:
  return '–' if value is None else format(value, spec)
