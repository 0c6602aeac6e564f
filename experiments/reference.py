"""The L0s of published SAEs, as rows beside one's own.

They stand in a figure's table because a picture is drawn from that alone, and
at the scales of published suites only: the embedded model has none.
"""

from collections.abc import Iterable

from experiments.figures import drawing, panels

_MODELS = {'gemma2_2b': '2b', 'gemma2_9b': '9b'}
_SITES = {'resid_post': 'res', 'mlp_out': 'mlp', 'attn_heads': 'att'}


def released(rows: Iterable[drawing.Row]) -> list[drawing.Row]:
  """Returns a row an L0 that Gemma Scope has where these rows are.

  Its model, site, layer and width are those of some of the rows; of the rest
  only `variant` and `l0` are there.
  """
  from jumprelu.release import formats as released_lib

  places = dict.fromkeys(
      (row['model'], row['site'], row['layer'], row['width'])
      for row in rows
      if row['model'] in _MODELS and row['site'] in _SITES
  )
  found = []
  for model, site, layer, width in places:
    repository = f'gemma-scope-{_MODELS[model]}-pt-{_SITES[site]}'
    for l0 in released_lib.l0s(repository, layer=layer, width=width):
      found.append(
          {
              'model': model,
              'site': site,
              'layer': layer,
              'width': width,
              'variant': panels.RELEASED,
              'l0': l0,
          }
      )
  return found
