"""Settings of all tests: 8 simulated devices, strict shapes, checked types."""

import importlib.util
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading

# Set before jax is imported; workers of pytest-xdist and processes that tests
# start inherit the variables.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
for flag in (
    '--xla_force_host_platform_device_count=8',
    # By default XLA aborts if devices wait for each other for a minute, which
    # happens with eight devices on two cores.
    '--xla_cpu_collective_call_warn_stuck_timeout_seconds=120',
    '--xla_cpu_collective_call_terminate_timeout_seconds=900',
):
  if flag not in os.environ.get('XLA_FLAGS', ''):
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flag}'

# XLA dispatches and runs programs of all devices on the threads of one pool. On
# few cores the pool is only as large as the number of devices, and can deadlock,
# because a device with 32 pending programs blocks one thread until they have
# run, and a single collective blocks all other threads.
os.environ.setdefault('PJRT_NPROC', '24')

# Programs that are slow to compile are cached for all tests and workers.
_COMPILED = None
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _COMPILED = tempfile.mkdtemp(prefix='compiled')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _COMPILED
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'

# A shell lets its background jobs ignore Ctrl-C, and their children inherit that.
# Tests that send the signal need children that do not.
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
  signal.signal(signal.SIGINT, signal.default_int_handler)

# Makes experiments/ and launch/ importable. The installed package has priority.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from beartype import BeartypeConf, claw  # noqa: E402
import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402
from xdist import scheduler  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')


def _with_shapes(package):
  """Returns the names of a package's modules whose types have shapes."""
  spec = importlib.util.find_spec(package)
  (place,) = map(pathlib.Path, spec.submodule_search_locations)
  for path in sorted(place.rglob('*.py')):
    if 'array_typing' in path.read_text():
      parts = path.relative_to(place.parent).with_suffix('').parts
      yield '.'.join(part for part in parts if part != '__init__')


_OTHERS = (
    # A server takes an application for its factory if it can be called without
    # arguments, as a coroutine that beartype has wrapped can.
    'jumprelu.explore.serve.guard',
    # Their named tuples are filled in part by tests. beartype checks the fields,
    # jaxtyping only arguments of functions.
    'jumprelu.lm.sites',
    'jumprelu.release.publish',
    'jumprelu.training.load_run',
    # Readers of files expect a TypeError of a field of the wrong type, and the
    # error of beartype is none.
    'jumprelu.training.member',
)

# jaxtyping compares shapes across arguments, but binds the arguments of each call
# and checks types twice. beartype suffices for the other modules.
claw.beartype_package('jumprelu', conf=BeartypeConf(claw_is_pep526=False))
install_import_hook([*_with_shapes('jumprelu'), *_OTHERS], 'beartype.beartype')

# The slowest files start first, so that no worker runs one of them last.
_FIRST = (
    'run/demo_test.py',
    'browser/performance_test.py',
    'browser/served_test.py',
    'variants_test.py',
    'run/target_l0_test.py',
    'evals/',
    'lm/model_test.py',
    'training/train_test.py',
)


def pytest_configure(config):
  # LLVM would optimise most programs of the fast tests for longer than they run.
  # XLA's own passes stay as they are, and slow tests run optimised programs.
  if 'not slow' in config.option.markexpr:
    os.environ['XLA_FLAGS'] += ' --xla_backend_optimization_level=0'


class _Files(scheduler.LoadScopeScheduling):
  """A scheduler of whole files, so that their fixtures are made only once."""

  def _split_scope(self, nodeid):
    path = nodeid.partition('::')[0]
    # These files share one evaluation with every measure.
    return 'tests/evals' if path.startswith('tests/evals/') else path


def pytest_xdist_make_scheduler(config, log):
  # Otherwise xdist would reorder the files by their number of tests.
  config.option.loadscopereorder = False
  return _Files(config, log)


def pytest_xdist_auto_num_workers(config):
  """Returns one worker per core, up to four, or none for a single file."""
  paths = config.args
  if len(paths) == 1 and not os.path.isdir(paths[0]):
    return 0
  return min(os.cpu_count() or 1, 4)


def pytest_collection_modifyitems(items):
  def place(item):
    path = item.nodeid.removeprefix('tests/')
    ranks = [n for n, first in enumerate(_FIRST) if path.startswith(first)]
    return ranks[0] if ranks else len(_FIRST)

  items.sort(key=place)


def pytest_unconfigure():
  if _COMPILED:
    shutil.rmtree(_COMPILED, ignore_errors=True)
