"""The speed of a whole job: language model, shuffle and suite, end to end.

The demo runs in a separate process. Its times are read from outside, from its
run directory, so that the command can also time the code of another checkout
(`--root`):

  python -m experiments.benchmarking.benchmark_job --json=now.json
  python -m experiments.benchmarking.benchmark_job --root=../before \
    --json=before.json

The output has the seconds to the first metrics (for imports, text, language
model, compilation and the first block), the tokens per second of training after
the first metrics, the seconds until the release is written, those of all after
training (evaluation, release, features and page), the CPU seconds and the peak
memory. With `--compiled=FOLDER`, a second run with the same folder
reuses the programs that the first run compiled.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from absl import flags

from jumprelu import errors
from jumprelu.run import flags as flags_lib
from jumprelu.run import main as main_lib

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SECONDS = 0.02  # Between checks of the run.


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  strings = {
      'root': (str(_ROOT), 'Checkout whose code is timed.'),
      'python': (sys.executable, 'Python interpreter for the checkout.'),
      'json': ('', 'File for the numbers, as a JSON object.'),
      'compiled': (
          '',
          'Folder of compiled programs; by default a new, empty folder.',
      ),
  }
  for name, (default, text) in strings.items():
    flags.DEFINE_string(name, default, text, flag_values=flag_values)
  flags_lib.define_integer(
      flag_values, 'tokens', 524_288, 'The --tokens of the demo.', lower_bound=1
  )


def run(flag_values: flags.FlagValues) -> int:
  """Runs the demo, and prints its times and memory."""
  with tempfile.TemporaryDirectory() as folder:
    work = pathlib.Path(folder)
    compiled = flag_values.compiled or work / 'compiled'
    results = _watch(
        [
            flag_values.python,
            '-m',
            'jumprelu.run.main',
            'demo',
            f'--out={work / "demo"}',
            f'--tokens={flag_values.tokens}',
        ],
        pathlib.Path(flag_values.root),
        work / 'demo' / 'run',
        environment={
            'JAX_COMPILATION_CACHE_DIR': str(compiled),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
        },
    )
  for name, value in results.items():
    print(f'{name:28} {value:12,.1f}')
  if flag_values.json:
    text = json.dumps(results, indent=1) + '\n'
    pathlib.Path(flag_values.json).write_text(text, 'utf-8')
  return 0


def _watch(
    command: list[str],
    root: pathlib.Path,
    run_folder: pathlib.Path,
    *,
    environment: dict[str, str],
) -> dict[str, float]:
  """Runs the demo; returns its times and memory, read from `run_folder`."""
  start = time.perf_counter()
  process = subprocess.Popen(
      command, cwd=root, env=os.environ | environment, stdout=subprocess.DEVNULL
  )
  first = trained = released = 0.0
  ended = 0
  while not ended:
    # Instead of `Popen.poll`, because it also returns the process's resources.
    ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    now = time.perf_counter() - start
    if not first and (run_folder / 'metrics.jsonl').exists():
      first = now
    if not trained and _state(run_folder) == 'done':
      trained = now
    if not released and (run_folder.parent / 'release').exists():
      released = now
    time.sleep(_SECONDS)
  process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise errors.UserError(
        f'the demo of {root} ended with code {process.returncode}; its messages'
        ' are above'
    )
  lines = (run_folder / 'metrics.jsonl').read_text('utf-8').splitlines()
  begin, end = json.loads(lines[0]), json.loads(lines[-1])
  seconds = end['seconds'] - begin['seconds']
  return {
      'seconds': now,
      'seconds_to_first_metrics': first,
      'seconds_of_training': seconds,
      'tokens_per_second': (end['positions'] - begin['positions']) / seconds,
      'seconds_to_release': released,
      'seconds_after_training': now - trained,
      'cpu_seconds': usage.ru_utime + usage.ru_stime,
      'peak_mib': usage.ru_maxrss / 1024,
  }


def _state(run_folder: pathlib.Path) -> str:
  try:
    return json.loads((run_folder / 'STATUS.json').read_text('utf-8'))['state']
  except (OSError, ValueError, KeyError):
    return ''


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.benchmarking.benchmark_job',
          sys.argv[1:],
      )
  )
