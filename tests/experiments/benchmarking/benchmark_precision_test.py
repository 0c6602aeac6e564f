"""The effect of precision: small by rounded inputs, large by rounded results."""

import numpy as np

from experiments.benchmarking import benchmark_precision


def test_rounded_results_hide_the_gradient_of_a_large_threshold():
  errors = benchmark_precision.gradient_errors(rows=8192)
  exact = np.array(errors['float32 inputs'])
  inputs = np.array(errors['bfloat16 inputs'])
  stored = np.array(errors['bfloat16 results'])
  assert (exact < inputs).all() and (inputs < stored).all()
  # Between 0.25 and 0.5, neighbouring bfloat16 numbers are two kernels apart.
  assert stored[-1] > 0.5 and inputs[-1] < 0.25


def test_the_table_pairs_seeds():
  rows = [
      {
          'precision': precision,
          'sparsity_coefficient': 1e-3,
          'seed': seed,
          'l0': 10.0 * seed + shift,
          'fvu': 0.1,
          'delta_loss': 0.2,
          'dead_share': 0.0,
      }
      for precision, shift in (('float32', 0.0), ('bfloat16', 0.5))
      for seed in (2, 0, 1)
  ]
  text = benchmark_precision.frontier_table(rows)
  assert '| 0.001 | l0 | 10 | 10.5 | +0.5 ± 0 |' in text
  assert len(text.splitlines()) == 2 + 4
  few = [row | {'dead_share': None} for row in rows]
  text = benchmark_precision.frontier_table(few)
  assert len(text.splitlines()) == 2 + 3 and 'dead_share' not in text
