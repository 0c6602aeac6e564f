"""Random evaluation results of a suite's members, for tests of figures."""

import numpy as np

from experiments.nano import made
from experiments.suites import scales, suites
from jumprelu.evals import evaluate
from jumprelu.evals import results as rows_lib
from jumprelu.evals.measures import histogram
from jumprelu.training import config as config_lib

SCALE = scales.QUICK
POSITIONS = 12


def make(need):
  """Returns random results in the format of the evaluation of `need`."""
  reading = isinstance(need, suites.Reading)
  suite = need.suite if reading else need
  config = made.resolve(suite.config)
  members = config_lib.members(config)
  if reading and need.sites:
    members = [m for m in members if m.site in need.sites]
  rng = np.random.default_rng(len(suite.name))
  frequencies = [rng.choice([0, 3e-4, 0.02, 0.3], m.width) for m in members]
  dtype = need.changes.get('lm_dtype') if reading else 'float32'
  rows = [
      _row(rng, member, frequency)
      | {'layer': config.layer, 'path': '', 'lm_dtype': dtype or 'float32'}
      for member, frequency in zip(members, frequencies, strict=True)
  ]
  tables = {
      'histogram': _histograms(frequencies),
      'positions': _positions(rng, len(rows)),
      'splitting': _pairs(rng, rows, 'width', ('narrow_path', 'wide_path')),
      'stability': _pairs(rng, rows, 'seed', ('path', 'other_path')),
  }
  return evaluate.Evaluation(
      rows,
      frequencies,
      {name: tables[name] for name in tables if name in need.measures},
  )


def _row(rng, member, frequency):
  l0 = float(frequency.sum()) * rng.uniform(0.5, 2)
  names = (
      'fvu', 'delta_loss', 'loss_recovered', 'loss_recovered_mean', 'gamma',
      'dead_share', 'r_l0', 'delta_loss_bfloat16', 'bfloat16_cost',
      'delta_loss_stderr', 'r_l0_stderr', 'bfloat16_cost_stderr',
      'encoder_fvu', 'pursuit_fvu', 'pursuit_l0', 'pursuit_delta_loss',
      'pursuit_delta_loss_stderr', 'tokens_pursuit',
  )  # fmt: skip
  return {
      'model': 'gemma2_nano',
      'site': member.site,
      'width': member.width,
      'variant': member.variant,
      'sparsity_coefficient': member.sparsity_coefficient,
      'target_l0': member.target_l0,
      'seed': member.seed,
      'tokens_trained': 4096,
      'tokens_evaluated': 8192,
      'tokens_delta_loss': 4096,
      'loss_clean': 1.5,
      'tokens_r_l0': 64,
      'l0': l0,
      **{name: float(rng.uniform(0.1, 0.9)) for name in names},
      **{k: float(v) for k, v in histogram.shares(frequency).items()},
  }


def _histograms(frequencies):
  return [
      rows_lib.make_row({'path': str(i)} | row)
      for i, frequency in enumerate(frequencies)
      for row in histogram.Histogram.from_frequency(frequency).compute()
  ]


def _positions(rng, members):
  rows = []
  for path in map(str, range(members)):
    for position in range(1, POSITIONS + 1):
      tokens = int(rng.integers(2, 50))
      error = float(rng.uniform(1, 2))
      rows.append(
          {
              'path': path,
              'position': position,
              'tokens': tokens,
              'l0': 5.0,
              'squared_error': error,
              'squared_error_stderr': 0.3 / tokens**0.5,
              'fvu': error / 4,
              'tokens_delta_loss': tokens - 1,
              'delta_loss': float(rng.uniform(0, 1)),
              'delta_loss_stderr': 0.2,
          }
      )
  return rows


def _pairs(rng, rows, differs, names):
  """Returns rows of all pairs of members that increase in the column `differs`.

  Pairs of seeds agree in all other columns; pairs of widths need not.
  """
  columns = ('site', 'variant', 'sparsity_coefficient', 'width')
  pairs = []
  for i, first in enumerate(rows):
    for j, second in enumerate(rows):
      if not first[differs] < second[differs]:
        continue
      if differs == 'seed' and any(first[c] != second[c] for c in columns):
        continue
      shares = ('new_share', 'kept_share', 'split_share', 'matched_share')
      values = {share: float(rng.uniform(0, 1)) for share in shares}
      pairs.append({names[0]: str(i), names[1]: str(j)} | values)
  return pairs
