"""L0s of Gemma Scope's SAEs, as its repositories list them."""

import json
import pathlib

import pytest

from jumprelu import errors
from jumprelu.release import formats
from jumprelu.release.formats import gemma_scope, gemma_scope_l0

_COUNTS = {
    'gemma-scope-2b-pt-att': 260,
    'gemma-scope-2b-pt-mlp': 260,
    'gemma-scope-2b-pt-res': 316,
    'gemma-scope-2b-pt-transcoders': 26,
    'gemma-scope-9b-pt-att': 492,
    'gemma-scope-9b-pt-mlp': 492,
    'gemma-scope-9b-pt-res': 536,
    'gemma-scope-9b-it-res': 30,
    'gemma-scope-27b-pt-res': 18,
}


def _table():
  """Returns the data of the package, read from its file."""
  path = pathlib.Path(gemma_scope_l0.__file__).with_suffix('.json')
  return json.loads(path.read_text('utf-8'))


def test_all_2430_saes_are_listed():
  counts = {}
  for repository, layers in _table().items():
    for layer, widths in layers.items():
      for width, values in widths.items():
        l0s = formats.l0s(repository, layer=layer, width=width)
        assert l0s == tuple(values) == tuple(sorted(set(values)))
        counts[repository] = counts.get(repository, 0) + len(l0s)
  assert counts == _COUNTS
  assert sum(counts.values()) == 2430


@pytest.mark.parametrize(
    'repository, layer, width, expected',
    [
        ('gemma-scope-2b-pt-res', 12, 16_384, (22, 41, 82, 176, 445)),
        ('gemma-scope-2b-pt-res', 5, 2**20, (9, 13, 21, 36, 63, 114)),
        ('gemma-scope-2b-pt-res', 12, '32k', (12, 22, 40, 76, 155, 360)),
        ('google/gemma-scope-2b-pt-mlp', 12, 65_536, (44, 96, 222, 482, 848)),
        (
            'gemma-scope-9b-pt-res',
            20,
            131_072,
            (11, 19, 34, 53, 62, 114, 221, 276),
        ),
        ('gemma-scope-9b-pt-att', 20, '16k', (20, 39, 76, 158, 342, 674)),
        ('gemma-scope-9b-it-res', 31, '131k', (13, 22, 37, 63, 109)),
        ('gemma-scope-27b-pt-res', 34, '131k', (21, 38, 72, 155, 333, 785)),
        ('gemma-scope-2b-pt-transcoders', 11, '16k', (5,)),
    ],
)
def test_known_values(repository, layer, width, expected):
  assert formats.l0s(repository, layer=layer, width=width) == expected


def test_embedding_saes_have_four_l0s_each():
  for size in ('2b', '9b'):
    name = f'gemma-scope-{size}-pt-res'
    assert len(formats.l0s(name, layer='embedding', width=4096)) == 4


def test_the_reader_knows_every_repository():
  for repository, layers in _table().items():
    for layer in set(layers) - {'embedding'}:
      parts = (repository, f'layer_{layer}', 'width_16k', 'average_l0_9')
      origin = gemma_scope.origin_of(parts)
      assert None not in origin[:3]
      assert origin.layer == int(layer)


@pytest.mark.parametrize(
    'changed, words',
    [
        ({'repository': 'gemma-scope-3b-pt-res'}, "repository 'gemma-scope-3b"),
        ({'layer': 26}, "layer '26': .*embedding"),
        ({'width': 8192}, "width '8k': .*16k, "),
    ],
)
def test_an_unknown_value_is_named(changed, words):
  known = {'repository': 'gemma-scope-2b-pt-res', 'layer': 12, 'width': 16384}
  request = known | changed
  with pytest.raises(errors.UserError, match=words):
    formats.l0s(request.pop('repository'), **request)
