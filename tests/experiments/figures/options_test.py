"""Figures of options: one suite per option, all from the same base config."""

import pytest

from experiments.figures import (
    drawing,
    gated_ablations,
    gated_rescaled,
    jumprelu_kernels,
    jumprelu_pre_acts,
    options,
)
from experiments.nano import made
from experiments.suites import scales
from jumprelu.files import dotted
from tests.experiments import small_results as small

_FIGURES = (
    gated_ablations,
    gated_rescaled,
    jumprelu_kernels,
    jumprelu_pre_acts,
)


def _changes(figure):
  """Returns by suite the fields that differ from the figure's first suite."""
  configs = {
      need.name: {
          path: leaf.value
          for path, leaf in dotted.leaves(made.resolve(need.config)).items()
      }
      for need in figure.needs(scales.NANO)
  }
  first = next(iter(configs.values()))
  return {
      name: {k: v for k, v in config.items() if v != first[k]}
      for name, config in configs.items()
  }


def test_an_ablation_changes_one_field_and_no_other():
  assert _changes(gated_ablations) == {
      'gated_unit': {},
      'gated_unfrozen': {'sae.gated.frozen_decoder': False},
      'gated_no_r_mag': {'sae.gated.rescale': False},
      'gated_untied': {'sae.gated.tied': False},
  }
  assert _changes(jumprelu_pre_acts) == {
      'plain_jumprelu': {},
      'to_pre_acts': {'sae.jumprelu.gradient_to_pre_acts': True},
  }
  assert _changes(jumprelu_kernels) == {
      'plain_jumprelu': {},
      **{
          f'kernel_{name}': {'sae.jumprelu.kernel': name}
          for name in ('triangle', 'epanechnikov', 'gaussian')
      },
  }


@pytest.mark.parametrize('figure', _FIGURES)
def test_every_option_has_a_curve_of_all_its_members(figure):
  results = {need.name: small.make(need) for need in figure.needs(small.SCALE)}
  rows = figure.table(results)
  assert len(rows) == sum(len(result.rows) for result in results.values())
  fig = figure.figure(rows)
  upper = fig.axes[: len(fig.axes) // 2]
  for axis in upper:
    assert len(axis.containers) == len(results)
    for curve in axis.containers:
      l0 = curve.lines[0].get_xdata()
      # One point per coefficient, because seeds are averaged.
      assert len(l0) == len(small.SCALE.sparsities['jumprelu'])
  options = {row['option'] for row in rows}
  assert options == set(results)
  first = drawing.where(rows, option=next(iter(results)))
  assert {row['seed'] for row in first} == set(small.SCALE.seeds)


def test_differences_are_taken_within_a_seed_at_equal_l0():
  rows = [
      {'option': option, 'seed': seed, 'l0': l0, 'fvu': base + 0.1 * seed}
      for option, offset in (('first', 0.0), ('other', 0.02))
      for seed in (0, 1)
      for l0, base in ((10, 0.3 + offset), (40, 0.1 + offset))
  ]
  # Halfway between the members of a seed, in the logarithm of L0.
  rows += [
      {'option': 'other', 'seed': 1, 'l0': l0, 'fvu': 0.25} for l0 in (20, 50)
  ]
  new = options.with_differences(rows, 'fvu', 'first')
  differences = [row['fvu_difference'] for row in new]
  assert differences[:4] == pytest.approx([0.0] * 4)
  assert differences[4:8] == pytest.approx([0.02] * 4)
  assert differences[8] == pytest.approx(0.25 - 0.3)
  assert differences[9] is None


def test_rows_without_the_metric_or_active_latents_have_no_difference():
  rows = [
      {'option': option, 'seed': 0, 'l0': l0, 'fvu': fvu}
      for option, l0, fvu in (
          ('first', 10.0, 0.2), ('first', 20.0, 0.1), ('first', 15.0, None),
          ('first', 0.0, 1.0), ('second', 15.0, None), ('second', 0.0, 1.0),
          ('second', 10.0, 0.25),
      )
  ]  # fmt: skip
  new = options.with_differences(rows, 'fvu', 'first')
  differences = [row['fvu_difference'] for row in new]
  assert differences[2:6] == [None] * 4
  assert differences[6] == pytest.approx(0.05)
