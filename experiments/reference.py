"""The L0s of published SAEs, as additional rows of a figure's table.

The L0s are part of the table, because a picture is drawn from its table alone.
Only the scales of Gemma 2 have such rows, because no SAEs of the embedded model
are published.
"""

from collections.abc import Iterable

from experiments.figures import drawing

_MODELS = {'gemma2_2b': '2b', 'gemma2_9b': '9b'}
_SITES = {'resid_post': 'res', 'mlp_out': 'mlp', 'attn_heads': 'att'}


def released(rows: Iterable[drawing.Row]) -> list[drawing.Row]:
  """Returns one row per L0 of Gemma Scope's SAEs that are comparable to `rows`.

  A Gemma Scope SAE is comparable if its model, site, layer and width occur
  together in one of the rows. Its row has these four columns, `variant` and
  `l0`, and no others.
  """
  from jumprelu.release import formats as released_lib

  places = dict.fromkeys(
      (row['model'], row['site'], row['layer'], row['width'])
      for row in rows
      if row['model'] in _MODELS and row['site'] in _SITES
  )
  published = []
  for model, site, layer, width in places:
    repository = f'gemma-scope-{_MODELS[model]}-pt-{_SITES[site]}'
    for l0 in released_lib.l0s(repository, layer=layer, width=width):
      published.append(
          {
              'model': model,
              'site': site,
              'layer': layer,
              'width': width,
              'variant': drawing.RELEASED,
              'l0': l0,
          }
      )
  return published
