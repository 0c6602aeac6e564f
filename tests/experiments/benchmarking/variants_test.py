"""The benchmark of variants: trials of each, and ratios within a round."""

import numpy as np

from experiments.benchmarking import problem, variants


def test_all_steps_have_about_the_same_l0_and_dead_latents_never_fire():
  made = problem.make(problem.Shape(16, 256, 64, 2), 8, zipf=False)
  for name in (('jumprelu', 'oracle'), ('topk', 'oracle')):
    l0, _ = variants.make(name, made, k=8, dead=0.25)(2)()
    assert 6 < l0 < 10, name
  # Without dead latents the others are chosen from more, so the loss differs.
  losses = [
      float(variants.make(('topk', 'oracle'), made, k=8, dead=dead)(1)()[1])
      for dead in (0.0, 0.25)
  ]
  assert not np.isclose(*losses, rtol=1e-3)


def test_ratios_are_within_rounds_and_the_order_alternates():
  order = []
  trials = {
      name: lambda steps, name=name: order.append(name) or (lambda: (8.0, 0.0))
      for name in (('jumprelu', 'native'), ('topk', 'native'))
  }
  times = variants.measure(trials, 2, 2)
  assert [len(x) for x in times.values()] == [2, 2]
  first, second = trials
  assert order == [first, second, second, first, first, second]
  fast, slow = [(1.0, 1.0), (10.0, 1.0)], [(3.0, 4.0), (20.0, 4.0)]
  text = variants.table({first: fast, second: slow})
  assert '| topk | native | 12 | 4 | 2.50 |' in text
