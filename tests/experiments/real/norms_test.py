"""The table of norms counts rows, variance and the mean by their definitions."""

import numpy as np
import pytest

from experiments.real import norms
from jumprelu.run import main


def test_a_limit_separates_outliers_from_the_mean():
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(1000, 8)).astype(np.float32) + 10
  rows[:4] *= 20
  text = norms.table(rows)
  lines = {line.split()[0]: line.split() for line in text.splitlines()[-6:]}
  for limit in ('2', '3', '5', '10'):
    assert float(lines[limit][1]) == pytest.approx(0.4)
    assert float(lines[limit][3]) > 95
    assert float(lines[limit][5]) == pytest.approx(99.0, abs=0.1)
  assert float(text.splitlines()[6].split()[-1]) == pytest.approx(20, rel=0.1)


@pytest.mark.slow
def test_the_command_reads_the_nano_model(capsys):
  flags = ['--model=gemma2_nano', '--data=stdlib', '--layer=2']
  assert not main.run_command(norms, 'norms', flags)
  assert 'rows, median norm' in capsys.readouterr().out
