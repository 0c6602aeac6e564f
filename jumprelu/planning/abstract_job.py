"""A run's programs, lowered on abstract arguments: shapes and shardings.

Each public function except `make` lowers one program, which `tpu_compile` then
compiles. No arrays are allocated, so that the mesh may consist of devices that
this computer does not have.

The SAEs of a run are called members. Members of the same shape form a group.
"""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jumprelu import lm, sharding
from jumprelu.activations import blocks
from jumprelu.activations import stream as stream_lib
from jumprelu.evals import corpus_passes, jitted, splice
from jumprelu.lm import placement
from jumprelu.training import config as config_lib
from jumprelu.training import load_run, suite
from jumprelu.training import step as step_lib


class Job(NamedTuple):
  """The inputs from which a run's programs are built."""

  config: config_lib.TrainConfig
  groups: tuple[suite.Group, ...]
  mesh: Mesh


def make(config: config_lib.TrainConfig, mesh: Mesh) -> Job:
  """Returns the abstract job of a config, without reading weights or text.

  Raises:
    UserError: The `data` axis of the mesh does not divide the stream's shards.
  """
  config.stream.check_data_axis(mesh.shape['data'])
  return Job(config, load_run.make_suite(config), mesh)


def block(job: Job) -> Any:
  """Lowers the program that makes a block of activations.

  The program runs the language model, drops unusable rows and shuffles.
  """
  program, args = _block_program(job)
  return program.lower(*args)


def segment(job: Job) -> Any:
  """Lowers a segment: the training steps of one dispatch, on a block."""
  config, mesh = job.config, job.mesh
  segments = step_lib.make_segments(
      job.groups,
      config.optim,
      total_steps=config.steps,
      batch=config.stream.batch,
      max_steps=config.stream.batches_per_dispatch,
      mesh=mesh,
      backend=config.backend,
  )
  number = _array(mesh, (), jnp.int32)
  with jax.default_matmul_precision(config.matmul_precision):
    state = segments.prepare(_state(job))
    return segments.run.lower(state, _block(job), number, number)


def clean(job: Job) -> Any:
  """Lowers an evaluation's clean forward pass, with no SAE spliced in."""
  program: Any = jitted.forward(
      _model(job, whole=True), _taps(job), mesh=job.mesh
  )
  return program.func.lower(*program.args, _eval_tokens(job))


def sums(job: Job) -> Any:
  """Lowers the sums of one member's metrics over a batch of held-out text."""
  return _lower_member(jitted.member_sums, job)


def reconstruct(job: Job) -> Any:
  """Lowers one member's reconstructions of a batch of held-out text."""
  return _lower_member(jitted.reconstruct, job)


def _lower_member(program: Any, job: Job) -> Any:
  """Lowers a program that an evaluation calls for each member.

  The arguments are those of a member of the largest group (`_widest`).
  """
  group, batch = _widest(job), _eval_batch(job)
  sae, params = _folded(job, group)
  return program.lower(
      params,
      batch.at(group.reads.inputs),
      batch.at(group.reads.targets),
      keep=batch.keep,
      sae=sae,
      mesh=job.mesh,
  )


def losses(job: Job) -> Any:
  """Lowers the language model's losses with a reconstruction spliced in."""
  group, batch = _widest(job), _eval_batch(job)
  target = group.reads.target
  model = _model(job, whole=True)
  program: Any = jitted.spliced_losses(model, target, mesh=job.mesh)
  return program.func.lower(*program.args, batch, batch.values[target])


def _array(
    mesh: Mesh, shape: tuple[int, ...], dtype: Any, *axes: str | None
) -> Any:
  """Returns an abstract array, sharded over these logical axes."""
  layout = sharding.named(mesh, *axes, shape=shape)
  return jax.ShapeDtypeStruct(shape, dtype, sharding=layout)


def _model(job: Job, *, whole: bool = False) -> lm.LanguageModel:
  """Returns the language model with abstract parameters.

  It has all layers if `whole`, and otherwise those that training needs.
  """
  config = lm.get_config(job.config.model)
  highest = max(tap.layer for tap in suite.taps(job.groups))
  layers = config.layers if whole else highest + 1
  params = placement.param_layout(
      config,
      num_layers=layers,
      dtype=config_lib.dtype_on(
          job.config.lm_dtype, sharding.platform(job.mesh)
      ),
      mesh=job.mesh,
  )
  return lm.LanguageModel(config, params, pathlib.Path('none'), layers)


def _block_program(job: Job) -> tuple[Any, tuple[Any, ...]]:
  """Returns the program of a block, and its abstract arguments."""
  config, mesh = job.config, job.mesh
  taps, model = suite.taps(job.groups), _model(job)
  forward = stream_lib.lm_forward(
      model,
      taps,
      input_gain=config.input_gain,
      mesh=mesh,
  )
  program = stream_lib.block_program(
      config.stream, forward, seed=config.corpus.seed, mesh=mesh
  )
  length = config.corpus.sequence_length
  rows = config.stream.sequences(length)
  tokens = _array(mesh, (rows, length), jnp.int32, 'sequences', None)
  scales = {tap: _array(mesh, (), jnp.float32) for tap in taps}
  limits = scales if config.stream.max_norm else {}
  number = _array(mesh, (), jnp.int32)
  return program, (model.params, tokens, number, scales, limits)


def _block(job: Job) -> blocks.Block:
  """Returns an abstract block, with the `shards` axis sharded over the mesh."""
  program, args = _block_program(job)

  def sharded(x):
    axes = ('shards',) + (None,) * (x.ndim - 1) if x.ndim else ()
    return _array(job.mesh, x.shape, x.dtype, *axes)

  return jax.tree.map(sharded, jax.eval_shape(program, *args))


def _state(job: Job) -> suite.TrainState:
  """Returns the abstract training state."""
  shapes = jax.eval_shape(
      functools.partial(suite.init_state, job.groups, mesh=job.mesh)
  )
  shardings = suite.state_shardings(job.groups, mesh=job.mesh)
  return jax.tree.map(
      lambda x, layout: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout),
      shapes,
      shardings,
  )


def _widest(job: Job) -> suite.Group:
  """Returns the group with the largest encoders."""
  return max(job.groups, key=lambda group: group.sae.width * group.sae.d_in)


def _folded(job: Job, group: suite.Group) -> tuple[Any, dict[str, Any]]:
  """Returns a member's SAE and abstract parameters, sharded for evaluation.

  They are folded (`Sae.fold`): the SAE takes unscaled activations.
  """
  folded = []

  def fold(key):
    params = group.sae.init_params(key, initial_threshold=0.1)
    sae, params = group.sae.fold(params, input_scale=1.0, target_scale=1.0)
    folded.append(sae)
    return params

  shapes = jax.eval_shape(fold, jax.random.key(0))
  params = {
      name: jax.ShapeDtypeStruct(
          x.shape,
          x.dtype,
          sharding=corpus_passes.param_sharding(
              folded[0], name, shape=x.shape, mesh=job.mesh
          ),
      )
      for name, x in shapes.items()
  }
  return folded[0], params


def _taps(job: Job) -> frozenset[lm.Tap]:
  """Returns the activations that an evaluation's clean pass records."""
  return splice.taps_for(group.reads for group in job.groups)


def _eval_tokens(job: Job) -> Any:
  """Returns the abstract tokens of one evaluation batch."""
  shape = (job.config.eval.lm_sequences, job.config.corpus.sequence_length)
  return _array(job.mesh, shape, jnp.int32, 'sequences', None)


def _eval_batch(job: Job) -> splice.Batch:
  """Returns the abstract result of the clean forward pass on one batch."""
  program: Any = jitted.forward(
      _model(job, whole=True), _taps(job), mesh=job.mesh
  )
  shapes = jax.eval_shape(program.func, *program.args, _eval_tokens(job))
  return jax.tree.map(
      lambda x: _array(
          job.mesh, x.shape, x.dtype, 'sequences', *(None,) * (x.ndim - 1)
      ),
      shapes,
  )
