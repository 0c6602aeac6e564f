"""The figure of inference-time optimisation, from hand-made results."""

from experiments.figures import gated_ito
from experiments.suites import scales
from jumprelu.evals import evaluate


def _row(variant, coefficient, seed):
  return {
      'site': 'resid_post', 'variant': variant, 'seed': seed,
      'sparsity_coefficient': coefficient, 'l0': 1 / coefficient + seed,
      'encoder_fvu': coefficient, 'pursuit_fvu': coefficient / 2,
      'delta_loss': coefficient, 'pursuit_delta_loss': coefficient / 3,
      'pursuit_l0': 1 / coefficient,
  }  # fmt: skip


def test_pursuit_and_encoder_are_drawn_in_one_panel():
  rows = [
      _row(variant, coefficient, seed)
      for variant in ('relu', 'jumprelu')
      for coefficient in (0.1, 0.2)
      for seed in (0, 1)
  ]
  (need,) = gated_ito.needs(scales.QUICK)
  assert need.measures == ('pursuit',) and need.sites == ('resid_post',)
  table = gated_ito.table({need.name: evaluate.Evaluation(rows, [])})
  left, right = gated_ito.figure(table).axes
  for axis, factor in ((left, 3), (right, 2)):
    curves = [container.lines[0] for container in axis.containers]
    # Two variants, each by encoder and by pursuit.
    assert len(curves) == 4
    encoded, pursued = curves[0].get_ydata(), curves[1].get_ydata()
    assert all(
        abs(a / b - factor) < 1e-6
        for a, b in zip(encoded, pursued, strict=True)
    )
  labels = left.get_legend_handles_labels()[1]
  assert labels == [
      f'{variant}, {source}'
      for variant in ('ReLU + L1', 'JumpReLU')
      for source in ('encoder', 'gradient pursuit')
  ]
