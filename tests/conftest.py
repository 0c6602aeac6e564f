"""Settings for every test: 8 simulated devices, strict shapes, checked types."""

import os
import shutil
import sys
import tempfile

# Before jax is imported anywhere. A worker of pytest-xdist finds them set, and
# so does what a test starts.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
for flag in (
    '--xla_force_host_platform_device_count=8',
    # XLA aborts where a device keeps the others waiting for a minute, which
    # eight on two cores may well do.
    '--xla_cpu_collective_call_warn_stuck_timeout_seconds=120',
    '--xla_cpu_collective_call_terminate_timeout_seconds=900',
):
  if flag not in os.environ.get('XLA_FLAGS', ''):
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {flag}'

# XLA starts and runs what devices compute on threads of one pool, of which it has
# no more than devices on few cores. Where 32 programs of a device wait, starting
# the next one takes a thread until they are run, and one collective the rest.
os.environ.setdefault('PJRT_NPROC', '24')

# What takes time is compiled once for all tests and workers.
_COMPILED = None
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _COMPILED = tempfile.mkdtemp(prefix='compiled')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _COMPILED
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'

# experiments/ and launch/ are not installed; the package itself is, and wins.
sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import jax  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402
from xdist import scheduler  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
install_import_hook('jumprelu', 'beartype.beartype')

# The files that take longest, so that no worker is left alone with one.
_FIRST = (
    'run/demo_test.py',
    'variants_test.py',
    'run/target_l0_test.py',
    'evals/',
    'lm/model_test.py',
    'training/train_test.py',
)


class _Files(scheduler.LoadScopeScheduling):
  """Whole files: what a file shares is made once."""

  def _split_scope(self, nodeid):
    path = nodeid.partition('::')[0]
    # These files share one evaluation with every measure.
    return 'tests/evals' if path.startswith('tests/evals/') else path


def pytest_xdist_make_scheduler(config, log):
  # In the order below, not by the number of tests.
  config.option.loadscopereorder = False
  return _Files(config, log)


def pytest_xdist_auto_num_workers(config):
  """A worker a core, up to four; none for one file, which would take one."""
  asked = config.args
  if len(asked) == 1 and not os.path.isdir(asked[0]):
    return 0
  return min(os.cpu_count() or 1, 4)


def pytest_collection_modifyitems(items):
  def place(item):
    path = item.nodeid.removeprefix('tests/')
    found = [n for n, first in enumerate(_FIRST) if path.startswith(first)]
    return found[0] if found else len(_FIRST)

  items.sort(key=place)


def pytest_unconfigure():
  if _COMPILED:
    shutil.rmtree(_COMPILED, ignore_errors=True)
