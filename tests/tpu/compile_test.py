"""The programs of Gemma Scope's suites, compiled by the TPU compiler.

No TPU is needed, because `jumprelu.planning.tpu_compile` compiles for a
topology in a separate process. `pytest -m 'tpu and not slow'` runs the suites
of 2B, and `pytest -m tpu` runs all suites.
"""

import dataclasses
import functools

import pytest

from experiments.benchmarking import scale
from jumprelu import lm, sharding
from jumprelu.planning import chips, plan, tpu_compile
from jumprelu.training import load_run

pytestmark = [
    pytest.mark.tpu,
    pytest.mark.skipif(
        not tpu_compile.available(), reason='needs `pip install libtpu==0.0.52`'
    ),
    pytest.mark.timeout(1800),
]

_IN_CI = ('2b-16k-v5e', '2b-65k-v5e')


def _cases(names):
  return [
      pytest.param(n, marks=() if n in _IN_CI else pytest.mark.slow, id=n)
      for n in names
  ]


@functools.cache
def _block(topology, cfg):
  """Returns the program of a block, which is the same for all widths."""
  return tpu_compile.compile_all(cfg, topology, programs=('block',))['block']


def _check_step(program, cfg, mesh):
  """Checks that only batches are gathered and only reconstructions summed."""
  groups = load_run.make_suite(cfg)
  rows = cfg.stream.batch * max(g.sae.d_in for g in groups)
  # With a `data` axis of 1, every chip has the whole block already.
  gathers = any(c.kind == 'all-gather' for c in program.collectives)
  assert gathers == (mesh.shape['data'] > 1)
  for c in program.collectives:
    if c.kind == 'all-reduce':
      # Reconstructions of all members, if XLA combines the sums into one.
      assert c.bytes <= 4 * rows * sum(len(g.members) for g in groups), c
    else:
      assert c.bytes <= 4 * rows, c  # A batch, not a whole block.


def _check_block(program, cfg, mesh):
  """Checks that weights are gathered by matrix, and the block never moves."""
  model = lm.get_config(cfg.model)
  sequences = cfg.stream.lm_sequences // mesh.shape['data']
  widest = max(model.d_model, model.heads * model.head_dim)
  activations = 4 * sequences * cfg.corpus.sequence_length * widest
  matrix = 2 * model.d_model * max(2 * model.ffw, model.vocab)
  pool = 2 * cfg.stream.block_positions * model.d_model
  for c in program.collectives:
    assert c.bytes < pool, c
    gathered = c.kind == 'all-gather'
    assert c.bytes <= max(activations, matrix if gathered else 0), c


@pytest.mark.parametrize('name', _cases(scale.SUITES))
def test_a_suite_compiles_fits_and_moves_only_the_arrays_of_its_layout(name):
  topology, cfg = scale.SUITES[name]
  slice_ = chips.parse(topology)
  compiled = tpu_compile.compile_all(cfg, topology, programs=('segment',))
  compiled['block'] = _block(topology, dataclasses.replace(cfg, widths=(1024,)))
  result = plan.make_plan(cfg, plan.Request(slice_), compiled=compiled)
  assert result['fits'], result['memory']
  for program in compiled.values():
    assert not program.host_transfers
  mesh = sharding.MeshShape(slice_.chips // cfg.mesh.tensor, cfg.mesh.tensor)
  _check_step(compiled['segment'], cfg, mesh)
  _check_block(compiled['block'], cfg, mesh)


@pytest.mark.parametrize(
    'name', _cases(['2b-16k-v5e', '9b-131k-v5e', '27b-131k-v5e'])
)
def test_an_evaluation_compiles_fits_and_gathers_no_dictionary(name):
  topology, cfg = scale.SUITES[name]
  slice_ = chips.parse(topology)
  compiled = tpu_compile.compile_all(
      cfg, topology, programs=('sums', 'reconstruct', 'losses')
  )
  group = load_run.make_suite(cfg)[0]
  dictionary = 4 * group.sae.width * group.sae.d_in
  batch = cfg.eval.lm_sequences * cfg.corpus.sequence_length * group.sae.d_in
  for program in compiled.values():
    assert not program.host_transfers
    assert program.peak_bytes < 0.9 * slice_.chip.hbm_bytes, program
  for name in ('sums', 'reconstruct'):
    for c in compiled[name].collectives:
      assert c.bytes <= 1.01 * 4 * batch, c  # XLA pads rows.
      assert f'{group.sae.width}' not in c.largest or c.bytes < dictionary, c


@pytest.mark.slow
def test_the_compiler_rejects_a_suite_that_is_too_large():
  cfg = scale.make_config('gemma2_2b', 12, width=2**19, tensor=1)
  with pytest.raises(Exception, match='compiler fails.*(memory|HBM|hbm)'):
    tpu_compile.compile_all(cfg, 'v5e:2x2', programs=('segment',))
