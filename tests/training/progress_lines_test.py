"""The progress of a run as text."""

import dataclasses
import math

import pytest

from jumprelu.training import progress_lines


def _group(name='resid_post-512-jumprelu', *, targets=(10.0, 30.0), l0=None):
  count = len(targets)
  return progress_lines.GroupProgress(
      name=name,
      targets=targets,
      l0=l0 or tuple(1.18 * max(x, 1) for x in targets),
      fvu=tuple(0.2 / (1 + n) for n in range(count)),
      dead_share=(0.031,) * count,
      loss=(0.4567,) * count,
  )


def _progress(*groups, **changes):
  fields = {'tokens_per_second': 12345.6, 'seconds_left': 3723.4} | changes
  return progress_lines.Progress(300, 1200, groups, **fields)


def test_each_group_has_a_line_with_its_targets_dead_share_and_loss():
  text = _progress(_group(), _group('mlp_out-512', targets=(0.0, 0.0))).lines()
  assert text.splitlines() == [
      'step 300/1200 25.0% | 12,346 tokens/s | ETA 1:02:03',
      '  resid_post-512-jumprelu: L0 11.8 35.4 (target 10 30, off 18%)'
      ' | FVU 0.200 0.100 | dead 3% 3% | loss 0.457 0.457',
      '  mlp_out-512: L0 1.2 1.2 | FVU 0.200 0.100 | dead 3% 3%'
      ' | loss 0.457 0.457',
  ]


@pytest.mark.parametrize('count', [1, 2, 3, 4, 6, 40])
def test_a_line_has_at_most_120_columns(count):
  targets = tuple(10.0 * (n + 1) for n in range(count))
  group = _group('attn_heads-16384-jumprelu', targets=targets)
  spread = tuple(n / count for n in range(count))
  line = dataclasses.replace(group, dead_share=spread, loss=spread).line()
  assert len(line) <= 120, line
  assert 'off 18%' in line


def test_a_large_group_is_shown_as_ranges_of_finite_values():
  l0 = (math.nan, *(5.0 * n for n in range(1, 12)))
  line = _group('g', targets=(0.0,) * 12, l0=l0).line()
  assert line.startswith('  g: L0 5.0-55.0 | FVU 0.017-0.200 | dead 3% | loss')


def test_an_estimate_within_the_first_block_is_marked_as_a_bound():
  line = _progress(is_bound=True).headline()
  assert line.endswith('above 12,346 tokens/s | ETA below 1:02:03')
  unknown = _progress(seconds_left=math.inf).headline()
  assert unknown.endswith('ETA unknown')
