"""Samples of a native step are sorted into its parts."""

import pytest

from experiments.benchmarking import native_parts, problem

_REPORT = """
# Overhead  Command       Shared Object   Symbol
    40.50%  tf_XLAEigen  _step.so  [.] jumprelu::(anonymous)::MultiplyAvx2
     3.25%  tf_XLAEigen  _step.so  [.] jumprelu::(anonymous)::Compare<2>
    20.00%  tf_XLAEigen  _step.so  [.] jumprelu::(anonymous)::BackwardLatents
    10.25%  tf_XLAEigen  libjax_common.so  [.] ynn::Multiply
     0.75%  python       [kernel.kallsyms]  [k] finish_task_switch
"""


def test_symbols_are_sorted_into_parts_and_others_are_counted():
  shares = native_parts.shares_of(_REPORT)
  assert shares['products of integers'] == pytest.approx(0.4375)
  assert shares['gradients and update'] == pytest.approx(0.2)
  # A function of another library is not one of the step.
  assert shares['other'] == pytest.approx(0.11)
  assert sum(shares.values()) == pytest.approx(0.7475)


def test_needed_operations_are_those_of_the_formulas():
  counts = native_parts.needed(problem.Shape(4, 10, 3, 1), 2)
  # 3 rows, 10 latents and 4 dimensions; 6 active pairs.
  assert counts['products of integers'] == (120, 40)
  assert counts['decoder and slopes'] == (48, 192)
  assert counts['gradients and update'] == (48, 192 + 4 * 2 * 4 * 40)
