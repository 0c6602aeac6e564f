"""A store holds the stream's batches, bit for bit, and resumes by blocks."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from jumprelu import errors, lm
from jumprelu.activations import scales as scales_lib
from jumprelu.activations import store
from jumprelu.activations.store import record
from jumprelu.training import harvest_store, train
from tests import small_store, toy_suite

_read_batch = jax.jit(toy_suite.read_batch, static_argnames='size')


def batches(source, scales, *, size=32):
  """Yields every batch of four blocks, in the order of training."""
  for number in range(4):
    block = source.make_block(number, scales)
    for index in range(4):
      yield jax.device_get(_read_batch(block, jnp.int32(index), size=size))


def test_only_blocks_that_are_computed_can_be_stored(
    written, tmp_path, monkeypatch
):
  stored = small_store.make_job(written)
  monkeypatch.setattr(
      harvest_store.job_lib, 'make_job', lambda config, **_: stored
  )
  config = dataclasses.replace(stored.config, store=str(tmp_path / 'other'))
  with pytest.raises(TypeError, match='blocks come from a Stored: only those'):
    harvest_store.harvest_store(config)


@pytest.mark.parametrize('devices', [0, 8])
def test_batches_are_the_streams_bit_for_bit(written, job, devices):
  mesh = toy_suite.make_mesh(devices) if devices else None
  stored = small_store.open_store(written, mesh=mesh)
  scales = stored.estimate_scales()
  assert scales == job.stream.estimate_scales()
  streamed = batches(job.stream, scales)
  for (rows, keep), (x, kept) in zip(
      batches(stored, scales), streamed, strict=True
  ):
    assert [str(tap) for tap in sorted(rows)] == [
        'layer_2.mlp_in',
        'layer_2.mlp_out',
        'layer_2.resid_post',
    ]
    for tap, value in rows.items():
      np.testing.assert_array_equal(value, x[tap])
    np.testing.assert_array_equal(keep, kept)


def test_rows_are_stored_in_the_order_of_training(written, job):
  # Read without the package: reshaping gives [rows, d_site].
  spec = {
      'driver': 'zarr3',
      'kvstore': {'driver': 'file', 'path': f'{written}/layer_2.mlp_out/'},
  }
  array = np.asarray(tensorstore.open(spec).result().read().result())
  assert array.shape == (16, 8, 4, 24)
  rows = array.reshape(-1, 24)
  unscaled = scales_lib.Scales(dict.fromkeys(job.stream.params, 1.0))
  for step, (x, _) in enumerate(batches(job.stream, unscaled)):
    np.testing.assert_array_equal(
        rows[32 * step : 32 * step + 32],
        x[lm.Tap(toy_suite.LAYER, lm.Site.MLP_OUT)],
    )


def test_a_writer_that_was_stopped_ends_with_the_same_bytes(
    tmp_path, monkeypatch, written, job
):
  stops = (1, 3)
  path = tmp_path / 'store'
  with small_store.small_files(monkeypatch):
    for stop in stops:
      assert small_store.write(path, job, stop=stops) == train.PREEMPTED
      assert len(record.read_blocks(path)) == stop
    # As after a kill during a write: half a line and half a block.
    with (path / 'blocks.jsonl').open('a') as file:
      file.write('{"block": ')
    torn = written / f'layer_2.resid_post/c/{stops[-1]}/0/0/0'
    partial = path / torn.relative_to(written)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(torn.read_bytes()[:100])
    assert small_store.write(path, job) == train.DONE
  assert small_store.files(path) == small_store.files(written)


def test_a_complete_store_is_left_alone(tmp_path, monkeypatch, written, job):
  path = tmp_path / 'store'
  shutil.copytree(written, path)
  monkeypatch.setattr(store.Writer, 'write_block', None)
  assert small_store.write(path, job) == train.DONE
  assert small_store.files(path) == small_store.files(written)


@pytest.mark.parametrize('first', [(), (1,)], ids=['complete', 'stopped'])
def test_an_extended_store_has_the_bytes_of_a_long_one(
    tmp_path, monkeypatch, written, first
):
  path = tmp_path / 'store'
  with small_store.small_files(monkeypatch):
    small_store.write(path, tokens=128 * 2, stop=first)
    # A kill between the reopening and the first new block loses nothing.
    with monkeypatch.context() as patched:
      patched.setattr(store.Writer, '_open', _fail)
      with pytest.raises(KeyboardInterrupt):
        small_store.write(path, tokens=128 * 4)
    assert small_store.write(path, tokens=128 * 4) == train.DONE
  assert small_store.files(path) == small_store.files(written)


def test_a_long_store_serves_fewer_tokens_once_it_is_complete(
    tmp_path, written, job
):
  path = tmp_path / 'complete'
  shutil.copytree(written, path)
  assert small_store.write(path, tokens=128 * 2) == train.DONE
  assert small_store.files(path) == small_store.files(written)
  small_store.write(tmp_path / 'part', job, stop=(1,))
  with pytest.raises(errors.UserError, match='of 2 more blocks; complete it'):
    small_store.write(tmp_path / 'part', tokens=128 * 2)


def _fail(*args, **kwargs):
  raise KeyboardInterrupt


def test_a_store_is_not_resumed_with_another_config(tmp_path, job):
  small_store.write(tmp_path, job, stop=(1,))
  with pytest.raises(errors.UserError) as e:
    small_store.write(tmp_path, sites=('resid_post',))
  assert "is ['layer_2.resid_post']" in str(e.value)
  assert e.value.exit_code == 2


def test_a_folder_with_other_files_is_left_alone(tmp_path, job):
  (tmp_path / 'thesis.txt').write_text('')
  with pytest.raises(errors.UserError, match='it holds thesis.txt'):
    small_store.write(tmp_path, job)
  assert not (tmp_path / 'progress.json').exists()


def test_the_free_space_is_checked_before_the_first_write(
    tmp_path, monkeypatch, job
):
  usage = shutil.disk_usage(tmp_path)._replace(free=50_000)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
  with pytest.raises(errors.FullDiskError, match='bytes, but 50,000 are free'):
    small_store.write(tmp_path, job)
  assert sorted(small_store.files(tmp_path)) == ['blocks.jsonl']


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'layer': 1}, 'layer_1.mlp_out, layer_1.resid_post are not stored'),
        ({'sites': ('attn_heads',)}, 'taps: layer_2.attn_heads are not stored'),
        ({'corpus__seed': 7}, 'corpus.seed was 0, is 7'),
        ({'data': 'other.txt'}, "data was 'stdlib', is 'other.txt'"),
        ({'input_gain': False}, 'input_gain was True, is False'),
        ({'stream__logical_shards': 4}, 'logical_shards was 8, is 4'),
        ({'tokens': 128 * 5}, 'tokens: 5 blocks are needed, 4 are stored'),
    ],
)
def test_a_config_that_would_stream_other_rows_is_refused(
    written, changes, words
):
  with pytest.raises(errors.UserError) as e:
    small_store.open_store(written, **changes)
  assert words in str(e.value)
  assert e.value.exit_code == 2


def test_fields_that_change_no_row_may_differ(written):
  small_store.open_store(
      written,
      sites=('resid_post',),
      tokens=128,
      widths=(16,),
      stream__lm_sequences=16,
      corpus__cache_dir='elsewhere',
  )


@pytest.mark.parametrize(
    'forward, read, words',
    [
        (1.0, 2.0, 'streaming is cheaper, however often'),
        # Streaming costs 4 s per run; a store costs 7 s and 1 s per run.
        (4.0, 1.0, 'streaming is cheaper for fewer than 3 training runs'),
        (4.0, 0.0, 'streaming is cheaper for fewer than 2 training runs'),
    ],
)
def test_the_cost_line_counts_forwards_against_reads(forward, read, words):
  assert words in harvest_store.cost_line(forward, 3.0, read=read)
