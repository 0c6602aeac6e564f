"""Fixtures of the tests that open our exports in the tools they are for.

Nothing here skips: a missing tool, demo or folder is a failure.
"""

from importlib import metadata
import os
import pathlib

import numpy as np
import pytest

from jumprelu.release import layout
from jumprelu.release.exports import source
from tests.release.exports import small

TOLERANCE = 1e-5
# The start of the name of a property of a report.
_PROPERTY = 'worst of '
# Inputs have one shape except at the heads, whose hook has a dimension for them.
_HEADS = 4


def pytest_terminal_summary(terminalreporter):
  """Prints the worst difference of each tool."""
  worst = {}
  for report in terminalreporter.getreports('passed'):
    for name, value in report.user_properties:
      if name.startswith(_PROPERTY):
        worst.setdefault(name.removeprefix(_PROPERTY), []).append(value)
  for tool, values in sorted(worst.items()):
    terminalreporter.write_line(
        f'{tool} {metadata.version(tool)}: worst difference {max(values):.1e}'
        f' in {len(values)} comparisons'
    )


@pytest.fixture(autouse=True)
def offline(monkeypatch):
  """Keeps the tools from downloading anything."""
  for name in ('HF_HUB_OFFLINE', 'TRANSFORMERS_OFFLINE', 'WANDB_MODE'):
    monkeypatch.setenv(name, 'offline' if name == 'WANDB_MODE' else '1')


def _folder(variable, cure):
  value = os.environ.get(variable)
  if not value or not pathlib.Path(value).is_dir():
    pytest.fail(f'{variable}={value}: no such folder; {cure}', pytrace=False)
  return pathlib.Path(value)


@pytest.fixture(scope='session')
def demo():
  """The output of `jumprelu demo`."""
  return _folder('JUMPRELU_DEMO', 'set it to the output of jumprelu demo')


@pytest.fixture(scope='session')
def made():
  """The output of `tests/readers/make.py`."""
  return _folder(
      'JUMPRELU_READERS', 'set it to the output of python -m tests.readers.make'
  )


@pytest.fixture(scope='session')
def suite(demo):
  """The SAEs of the demo, by path."""
  return {s.path: s for s in source.read(demo / 'release')}


@pytest.fixture(scope='session')
def activations(demo, suite):
  """Nano activations by site, from the test vectors of the demo's release."""
  values = {}
  for path, sae in suite.items():
    with np.load(demo / 'release' / path / layout.TEST_VECTORS) as arrays:
      values[str(sae.released.origin.site)] = arrays['x']
  return values


@pytest.fixture
def record(record_property):
  """Records a difference from a tool, and checks that it is tiny."""

  def record(tool, value, tolerance=TOLERANCE):
    record_property(_PROPERTY + tool, float(value))
    assert value <= tolerance

  return record


@pytest.fixture
def agree(record):
  """Compares a tool's latents and reconstructions with ours."""

  def agree(tool, theirs, released, x=None, *, heads=False):
    """Raises if they differ by more than 1e-5 of the largest entry.

    Args:
      tool: The name of the tool's distribution.
      theirs: The tool's SAE, with `encode` and `__call__`.
      released: Ours.
      x: Inputs, [rows, d_in]; random ones if None.
      heads: Whether the tool wants a dimension of attention heads.
    """
    import torch

    x = small.inputs(released.sae.d_in) if x is None else np.asarray(x)
    wanted = [np.asarray(v) for v in small.outputs(released, x)]
    assert 0 < np.count_nonzero(wanted[0]) < wanted[0].size
    tensor = torch.from_numpy(x)
    if heads:
      tensor = tensor.reshape(len(x), _HEADS, -1)
    with torch.no_grad():
      values = [theirs.encode(tensor), theirs(tensor)]
    for value, want in zip(values, wanted, strict=True):
      difference = np.abs(value.numpy().reshape(want.shape) - want).max()
      record(tool, difference / np.abs(want).max())

  return agree
