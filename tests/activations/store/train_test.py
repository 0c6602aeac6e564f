"""Training from a store has the same bits as training from the stream."""

import json
import pathlib
import shutil
import threading

import jax
import numpy as np
import pytest

from jumprelu.activations import store
from jumprelu.activations.store import record
from jumprelu.training import run_dir, train
from tests import compiled, small_run, small_store, toy_suite

_STEPS = 13


@pytest.fixture(scope='module', autouse=True)
def compile_once(tmp_path_factory):
  with compiled.compile_once(tmp_path_factory.mktemp('compiled')):
    yield


@pytest.fixture(scope='module')
def streamed(tmp_path_factory, job):
  """The run that streams."""
  out = tmp_path_factory.mktemp('runs') / 'streamed'
  assert _train(out, job) == train.DONE
  return out


def _train(out, job, stop=()):
  directory = run_dir.RunDir(out)
  with directory.claim(job.config):
    return train.run(job, directory, should_stop=lambda step: step in stop)


def _assert_same_run(out, other):
  small_run.assert_same_bits(out, other, _STEPS)
  assert small_run.metrics(out) == small_run.metrics(other)
  names = 'scales', 'data_digest', 'members'
  ours, theirs = (
      run_dir.RunDir(path).read('suite.json') for path in (out, other)
  )
  assert {n: ours[n] for n in names} == {n: theirs[n] for n in names}


def test_a_run_stopped_inside_blocks_and_resumed_is_the_streamed_run(
    tmp_path, written, job, streamed
):
  # The run starts with the stream and is resumed twice from the store.
  for stop, part in ((3, job), (7, small_store.make_job(written))):
    assert _train(tmp_path, part, stop=(stop,)) == train.PREEMPTED
  assert _train(tmp_path, small_store.make_job(written)) == train.DONE
  _assert_same_run(tmp_path, streamed)


@pytest.mark.slow
def test_a_subset_of_the_sites_is_trained_as_if_streamed_alone(
    tmp_path, written
):
  config = toy_suite.make_config(sites=('resid_post',))
  _train(tmp_path / 'streamed', toy_suite.make_job(config))
  job = small_store.make_job(written, sites=('resid_post',))
  _train(tmp_path / 'stored', job)
  _assert_same_run(tmp_path / 'stored', tmp_path / 'streamed')


@pytest.mark.parametrize('recorded', [False, True], ids=['new', 'old record'])
def test_other_batches_are_trained_as_if_streamed(tmp_path, written, recorded):
  path = tmp_path / 'store'
  shutil.copytree(written, path)
  if recorded:
    manifest = json.loads((path / 'manifest.json').read_text())
    manifest.pop('crc32')
    manifest['identity']['stream.batch'] = 32
    record.finish(path, manifest)
  config = toy_suite.make_config(stream__batch=16)
  _train(tmp_path / 'streamed', toy_suite.make_job(config))
  _train(tmp_path / 'stored', small_store.make_job(path, stream__batch=16))
  stored, streamed = tmp_path / 'stored', tmp_path / 'streamed'
  small_run.assert_same_bits(stored, streamed, config.steps)
  assert small_run.metrics(stored) == small_run.metrics(streamed)


def test_the_next_block_is_read_while_this_one_trains(written, monkeypatch):
  read, done = [], threading.Event()
  plain = store.Stored.read

  def watched(self, index):
    block = plain(self, index)
    read.append((index, threading.current_thread().name))
    if index == 1:
      done.set()
    return block

  monkeypatch.setattr(store.Stored, 'read', watched)
  stored = small_store.open_store(written)
  stored.make_block(0, stored.estimate_scales())
  # Block 1 is read before it is requested.
  assert done.wait(60)
  assert [index for index, _ in read] == [0, 1]
  main = threading.current_thread().name
  assert main not in {name for _, name in read}
  stored.make_block(1, stored.estimate_scales())
  assert [index for index, _ in read].count(1) == 1


def test_a_bfloat16_store_holds_the_models_bits(tmp_path):
  table = {
      tap: x.astype(jax.numpy.bfloat16)
      for tap, x in toy_suite.make_table().items()
      if tap.site == 'resid_post'
  }
  config = toy_suite.make_config(sites=('resid_post',), tokens=128)
  job = toy_suite.make_job(config, table=table)
  path = pathlib.Path(tmp_path)
  small_store.write(path, job, dtype='bfloat16')
  scales = job.stream.estimate_scales()
  stored = small_store.open_store(path, config=config, dtype='bfloat16')
  ours = stored.make_block(0, scales)
  theirs = job.stream.make_block(0, scales)
  (tap,) = theirs.activations
  assert ours.activations[tap].dtype == jax.numpy.bfloat16
  assert (
      path / 'layer_2.resid_post/c/0/0/0/0'
  ).stat().st_size < 128 * 16 * 2 + 200
  for number in range(4):
    (x, _), (y, _) = (
        toy_suite.read_batch(block, jax.numpy.int32(number))
        for block in (ours, theirs)
    )
    np.testing.assert_array_equal(x[tap], y[tap])
