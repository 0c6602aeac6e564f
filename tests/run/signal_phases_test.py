"""The real command leaves at a signal in every phase of its start."""

import json
import signal

import pytest

from tests import local_processes, small_run

STEPS = 16

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('signals')


@pytest.mark.parametrize(
    'phase, number, code',
    [
        ('reading text', signal.SIGINT, 130),
        ('tokenising text', signal.SIGTERM, 42),
        ('loading and checking', signal.SIGINT, 130),
        ('estimating the scales', signal.SIGTERM, 42),
        ('compiling', signal.SIGINT, 130),
        ('compiling', signal.SIGTERM, 42),
    ],
)
def test_a_start_leaves_with_one_line_and_can_be_repeated(
    folder, tmp_path, phase, number, code
):
  config = small_run.overrides(folder, steps=STEPS)
  config['corpus.cache_dir'] = str(tmp_path / 'cache')
  out = tmp_path / 'run'
  argv = small_run.command(out, config)
  with local_processes.run(argv) as child:
    child.wait_for(phase)
    child.popen.send_signal(number)
    assert child.exit_code() == code
  assert child.output.count(f'leaving with {code}') == 1
  assert 'Traceback' not in child.output
  for _ in range(2):
    local_processes.finish(argv)
  record = json.loads((out / 'STATUS.json').read_text())
  assert (record['state'], record['step']) == ('done', STEPS)
