"""Imports: libraries that light commands must not load."""

import json
import resource
import subprocess
import sys

import pytest

from jumprelu.run import main
from tests import small_release

# Each takes seconds and hundreds of megabytes; gemma and kauldron also patch
# flax.
_HEAVY = {
    'gemma',
    'kauldron',
    'kubernetes',
    'matplotlib',
    'pyarrow',
    'tensorflow',
    'tensorflow_datasets',
    'xmanager',
}
# Libraries for training, for reading text and for reading runs.
_OF_RUNS = {'flax', 'grain', 'optax', 'orbax', 'sentencepiece', 'tensorstore'}


def _loaded_after(code: str) -> set[str]:
  script = f'{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))'
  done = subprocess.run(
      [sys.executable, '-c', script],
      capture_output=True,
      text=True,
      timeout=120,
      check=True,
  )
  return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    'code',
    [
        'import jumprelu',
        'from jumprelu.run import main; main.main(["--help"])',
        'from jumprelu.run import main; main.main(["--version"])',
        'from jumprelu.run import main; main.main(["no-such-command"])',
    ],
)
def test_the_package_and_its_help_do_not_load_jax(code):
  assert _loaded_after(code) & (_HEAVY | {'jax', 'numpy', 'orbax'}) == set()


@pytest.mark.parametrize(
    'code',
    [
        'from jumprelu import saes, data, lm, evals',
        'from jumprelu.training import config;'
        ' config.resolve({"recipe": "paper"})',
        'from jumprelu.training import train; from jumprelu.evals import evaluate;'
        ' from jumprelu.release import verify, write',
        'from jumprelu.run import main; main.main(["train", "--help"])',
        'from jumprelu.run import main; main.main(["train", "--layer=99"])',
        'from jumprelu.run import main; main.main(["verify", "nowhere"])',
    ],
)
def test_code_without_a_language_model_loads_no_tensorflow(code):
  assert _loaded_after(code) & _HEAVY == set()


def test_a_training_step_needs_no_reader_of_records():
  code = (
      'from jumprelu import lm; from jumprelu.activations import blocks;'
      ' from jumprelu.training import optim, step, suite'
  )
  assert _loaded_after(code) & (_HEAVY | {'array_record', 'grain'}) == set()


def test_the_help_of_no_command_loads_tensorflow():
  calls = [f'main.main(["{name}", "--help"])' for name in main.COMMANDS]
  code = 'from jumprelu.run import main; ' + '; '.join(calls)
  # Only a loader of text needs grain.
  assert _loaded_after(code) & (_HEAVY | {'grain'}) == set()


def test_verifying_a_release_loads_only_the_libraries_of_saes(tmp_path):
  out = small_release.write(tmp_path / 'release')
  code = (
      'from jumprelu.run import main\n'
      f'assert main.main(["verify", {str(out)!r}]) == 0'
  )
  assert _loaded_after(code) & (_HEAVY | _OF_RUNS) == set()


def test_status_does_not_load_jax(tmp_path):
  code = f'from jumprelu.run import main; main.main(["status", "{tmp_path}"])'
  assert _loaded_after(code) & (_HEAVY | _OF_RUNS | {'jax'}) == set()


def test_the_help_of_status_loads_no_library_of_remote_storage():
  code = 'from jumprelu.run import main; main.main(["status", "--help"])'
  assert _loaded_after(code) & (_HEAVY | {'etils', 'jax'}) == set()


_WRONG_FLAG = (
    'from jumprelu.run import main\n'
    'assert main.main(["train", "--out=x", "--width=5"]) == 2'
)


def test_a_wrong_flag_loads_no_library_of_runs():
  assert _loaded_after(_WRONG_FLAG) & (_HEAVY | {'grain', 'orbax'}) == set()


def _cpu_seconds(code: str) -> float:
  """Returns the smallest CPU time of three processes that run the code."""
  seconds = []
  for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, '-c', code], check=True, stderr=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds.append(
        after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    )
  return min(seconds)


def test_a_wrong_flag_costs_little_more_than_the_import_of_jax():
  assert _cpu_seconds(_WRONG_FLAG) < 2 * _cpu_seconds('import jax')


def test_a_plan_loads_no_language_model():
  code = (
      'from jumprelu.run import main\n'
      'assert main.main(["plan", "--model=gemma2_2b", "--layer=12"]) == 0'
  )
  assert _loaded_after(code) & (_HEAVY | {'grain'}) == set()


def test_help_and_bad_flags_use_no_device():
  code = (
      'import jax\n'
      'def refuse(*args, **kwargs): raise AssertionError("a device")\n'
      'jax.devices = jax.local_devices = jax.device_count = refuse\n'
      'jax.default_backend = jax.process_index = refuse\n'
      'from jumprelu.run import main\n'
      'assert main.main(["train", "--help"]) == 0\n'
      'assert main.main(["train", "--out=x", "--layer=99"]) == 2\n'
      'from jax._src import xla_bridge\n'
      'assert not xla_bridge.backends_are_initialized()'
  )
  done = subprocess.run(
      [sys.executable, '-c', code],
      capture_output=True,
      text=True,
      timeout=120,
      check=False,
  )
  assert done.returncode == 0, done.stderr
