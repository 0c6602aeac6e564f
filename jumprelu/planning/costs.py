"""Formulas for a run's FLOPs, memory and traffic between chips.

No function of this module uses a device.

Language model: each parameter of a matrix costs 2 FLOP per token. Attention
costs 4 x heads x head_dim x positions FLOP per token and layer, because masked
scores are computed too.

SAE: a training step costs 10 x model x latents FLOP per row. The forward pass
has two matrix products. The backward pass has three, because it needs no
gradient with respect to the inputs. Each product costs 2 x model x latents.

The SAEs of a run are called members. Members of the same shape form a group and
are stacked.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jumprelu import lm, sharding
from jumprelu.lm import attention
from jumprelu.training import backends, load_run, suite
from jumprelu.training import config as config_lib

# The number of float32 arrays [batch, latents] that a member's step has in
# memory at once. It is fitted to reports of the TPU compiler.
_STEP_ARRAYS = 4.5
# The same for automatic differentiation (the backend `oracle`) of members that
# are stepped together.
_ORACLE_ARRAYS = 8.6


class Memory(NamedTuple):
  """The peak memory of a chip, in bytes."""

  # The loaded layers of the language model.
  weights: int
  # A block of activations.
  block: int
  # The parameters and second moments of all members.
  state: int
  # The temporary arrays of the program that makes a block or of a training
  # step, whichever are larger.
  temporary: int

  @property
  def total(self) -> int:
    """The sum of the fields."""
    return sum(self)


def layer_params(config: lm.LmConfig) -> int:
  """Returns the number of parameters of one layer's matrices."""
  return sum(lm.family_of(config).matrices(config))


def layer_flops(config: lm.LmConfig, positions: int) -> int:
  """Returns the FLOP per token of one layer."""
  attention = 4 * config.heads * config.head_dim * positions
  return 2 * layer_params(config) + attention


def lm_flops(
    config: lm.LmConfig,
    *,
    layer: int,
    positions: int,
    sites: Sequence[lm.Site] = (lm.Site.RESID_POST,),
) -> int:
  """Returns the FLOP per token of a forward pass up to the sites of `layer`.

  Args:
    config: The language model's config.
    layer: The number of the highest layer, from 0.
    positions: The length of a sequence.
    sites: The sites that are read in that layer.
  """
  total = (layer + 1) * layer_flops(config, positions)
  matrices = lm.family_of(config).matrices(config)
  if not {lm.Site.RESID_POST, lm.Site.MLP_OUT} & set(sites):
    total -= 2 * matrices.mlp  # No site needs the last MLP.
    if lm.Site.MLP_IN not in sites:
      total -= 2 * matrices.attention_output
  return total


def loaded_params(config: lm.LmConfig, layers: int) -> int:
  """Returns the number of parameters of the embedding and the first layers.

  The parameters of norms are not counted.
  """
  return config.vocab * config.d_model + layers * layer_params(config)


def member_params(group: suite.Group) -> int:
  """Returns the number of parameters of one member."""
  sae = group.sae
  encoders = sae.d_in * len(sae.encoders)
  skip = sae.d_in * sae.d_out if sae.skip else 0
  return (sae.width + 1) * sae.d_out + sae.width * (encoders + 2) + skip


def member_flops(group: suite.Group) -> int:
  """Returns the FLOP per row of one member's step."""
  sae = group.sae
  encoders = sae.d_in * len(sae.encoders)
  return sae.width * (4 * encoders + 6 * sae.d_out)


def parts(group: suite.Group, mesh: sharding.MeshShape) -> tuple[int, ...]:
  """Returns (members per device, shards of a member, shards of a batch).

  Members include the padding to a multiple of the shards of the `members` axis.
  A member is sharded over its latents, a batch over its rows.
  """
  rules = suite.layout_of(group, mesh).rules

  def shards(name):
    return sharding.axis_size(mesh, name, rules=rules)

  return (
      suite.slots(group, mesh) // shards('members'),
      shards('latents'),
      shards('batch'),
  )


def step_flops(
    groups: Sequence[suite.Group], mesh: sharding.MeshShape, batch: int
) -> float:
  """Returns the FLOP of a step on one chip; padding members are counted."""
  total = 0.0
  for group in groups:
    members, latents, rows = parts(group, mesh)
    total += batch * member_flops(group) * members / latents / rows
  return total


def step_traffic(
    groups: Sequence[suite.Group], mesh: sharding.MeshShape, batch: int
) -> float:
  """Returns the bytes that a chip receives from other chips in a step."""
  total = 0.0
  if mesh.size == 1:
    return total
  for group in groups:
    members, latents, rows = parts(group, mesh)
    if rows == 1 and mesh.shape['data'] > 1:
      # Every chip gets the whole batch in bfloat16. Only a transcoder needs
      # targets besides the inputs.
      total += 2 * batch * group.sae.d_in
      if group.reads.is_transcoder:
        total += 2 * batch * group.sae.d_out
    if latents > 1:
      # Reconstructions are summed over the shards of latents. The factor 2 is
      # that of an all-reduce, which transfers every byte twice.
      total += 2 * 4 * members * batch / rows * group.sae.d_out
    if rows > 1:
      # Gradients are summed over the shards of the batch.
      total += 2 * 4 * members * member_params(group) / latents
  return total


def memory(config: config_lib.TrainConfig, mesh: sharding.MeshShape) -> Memory:
  """Returns the peak memory of a chip in a training run.

  Arrays whose layout depends on the platform are counted as on TPUs.
  """
  model, groups = lm.get_config(config.model), load_run.make_suite(config)
  width = 4 if config.lm_dtype == 'float32' else 2
  data, tensor = mesh.shape['data'], mesh.shape['tensor']

  layers = 1 + max(tap.layer for tap in suite.taps(groups))
  weights = width * loaded_params(model, layers)
  fsdp = sharding.lm_rules(mesh, weights) is sharding.FSDP_RULES
  weights //= tensor * (data if fsdp else 1)

  taps = suite.taps(groups)
  row = width * sum(model.d_site(tap.site) for tap in taps)
  block = config.stream.block_positions * row // data

  state = 0
  for group in groups:
    members, latents, _ = parts(group, mesh)
    # A parameter and its second moment, in float32.
    state += 8 * (members * member_params(group) // latents)
  step = max(_step(config, group, mesh) for group in groups)

  # A forward pass has the attention scores and the widest activations of one
  # layer in memory. With FSDP, the gathered weights of two layers are in memory
  # too.
  length = config.corpus.sequence_length
  sequences = max(1, config.stream.lm_sequences // data)
  rows = attention.rows_of_scores(model, length, 'tpu')
  scores = sequences * model.heads * length * rows // min(tensor, model.heads)
  hidden = sequences * length * (2 * model.ffw // tensor + 4 * model.d_model)
  layer = width * layer_params(model) // tensor if fsdp else 0
  forward = width * (scores + hidden) + 2 * layer
  return Memory(weights, block, state, max(step, forward))


def _step(
    config: config_lib.TrainConfig,
    group: suite.Group,
    mesh: sharding.MeshShape,
) -> int:
  """Returns the bytes of a step's temporary arrays on a chip for one group."""
  members, latents, rows = parts(group, mesh)
  together = suite.layout_of(group, mesh).members
  oracle = config.backend == 'oracle' or not backends.is_plain(group.sae)
  arrays = _ORACLE_ARRAYS if together and oracle else _STEP_ARRAYS
  arrays *= config.stream.batch // rows * group.sae.width // latents
  member_bytes = 4 * (member_params(group) // latents + int(arrays))
  if together:
    return members * member_bytes
  # The members are stepped one after another (`training/step.py`). The compiler
  # copies the decoders of all members and their second moments into the memory
  # layout of the encoders.
  copies = 8 * members * group.sae.width * group.sae.d_out // latents
  return member_bytes + copies
