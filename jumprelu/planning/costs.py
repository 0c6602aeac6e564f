"""What a run computes and holds, by formula: FLOPs, bytes, and where they lie.

Nothing here touches a device. A language model's matrices cost 2 FLOP a
parameter and token, its attention 4 x heads x head_dim x positions a layer, as
masked scores are computed too. A training step of an SAE costs 10 x model x
latents a row: two products forward, three backward, none towards the inputs.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jumprelu import lm, sharding
from jumprelu.lm import attention
from jumprelu.training import backends, load_run, suite
from jumprelu.training import config as config_lib

# Arrays [batch, latents] of float32 that a member's step holds at once, counted
# in what the TPU compiler reports; and where several members are differentiated
# automatically together.
_STEP_ARRAYS = 4.5
_ORACLE_ARRAYS = 8.6


class Memory(NamedTuple):
  """Bytes a chip, of its fullest moment."""

  weights: int
  block: int
  state: int
  # Of the making of a block or of a step, whichever is more.
  temporary: int

  @property
  def total(self) -> int:
    """All of them."""
    return sum(self)


def layer_params(config: lm.LmConfig) -> int:
  """Parameters of one layer's matrices."""
  return sum(lm.family_of(config).matrices(config))


def layer_flops(config: lm.LmConfig, positions: int) -> int:
  """FLOP a token of one layer."""
  attention = 4 * config.heads * config.head_dim * positions
  return 2 * layer_params(config) + attention


def lm_flops(
    config: lm.LmConfig,
    *,
    layer: int,
    positions: int,
    sites: Sequence[lm.Site] = (lm.Site.RESID_POST,),
) -> int:
  """FLOP a token of the forward pass up to what is read of `layer`."""
  total = (layer + 1) * layer_flops(config, positions)
  matrices = lm.family_of(config).matrices(config)
  if not {lm.Site.RESID_POST, lm.Site.MLP_OUT} & set(sites):
    total -= 2 * matrices.mlp  # Nobody reads it, so it is not computed.
    if lm.Site.MLP_IN not in sites:
      total -= 2 * matrices.attention_output
  return total


def loaded_params(config: lm.LmConfig, layers: int) -> int:
  """Parameters of the embedding and the first layers, norms left out."""
  return config.vocab * config.d_model + layers * layer_params(config)


def member_params(group: suite.Group) -> int:
  """Parameters of one member."""
  sae = group.sae
  encoders = sae.d_in * len(sae.encoders)
  skip = sae.d_in * sae.d_out if sae.skip else 0
  return (sae.width + 1) * sae.d_out + sae.width * (encoders + 2) + skip


def member_flops(group: suite.Group) -> int:
  """FLOP a row of one member's step."""
  sae = group.sae
  encoders = sae.d_in * len(sae.encoders)
  return sae.width * (4 * encoders + 6 * sae.d_out)


def parts(group: suite.Group, mesh: sharding.MeshShape) -> tuple[int, ...]:
  """(members a device, parts of a member, parts of a batch) in its layout."""
  rules = suite.layout_of(group, mesh).rules

  def cut(name):
    return sharding.axis_size(mesh, name, rules=rules)

  return (
      suite.slots(group, mesh) // cut('members'),
      cut('latents'),
      cut('batch'),
  )


def step_flops(
    groups: Sequence[suite.Group], mesh: sharding.MeshShape, batch: int
) -> float:
  """FLOP of a step on one chip, padding members included."""
  total = 0.0
  for group in groups:
    members, latents, rows = parts(group, mesh)
    total += batch * member_flops(group) * members / latents / rows
  return total


def step_traffic(
    groups: Sequence[suite.Group], mesh: sharding.MeshShape, batch: int
) -> float:
  """Bytes that a chip receives from others in a step."""
  total = 0.0
  if mesh.size == 1:
    return total
  for group in groups:
    members, latents, rows = parts(group, mesh)
    if rows == 1 and mesh.shape['data'] > 1:
      # Rows in bfloat16; the input is the target too, but of a transcoder.
      total += 2 * batch * group.sae.d_in
      if group.reads.is_transcoder:
        total += 2 * batch * group.sae.d_out
    if latents > 1:
      # An all-reduce passes every byte twice.
      total += 2 * 4 * members * batch / rows * group.sae.d_out
    if rows > 1:
      total += 2 * 4 * members * member_params(group) / latents
  return total


def memory(config: config_lib.TrainConfig, mesh: sharding.MeshShape) -> Memory:
  """Bytes a chip of a training run."""
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
    state += 8 * (members * member_params(group) // latents)
  step = max(_step(config, group, mesh) for group in groups)

  # Scores of one layer, and the widest activation, of one forward.
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
  """Bytes a chip that a step of a group takes beside state and block."""
  members, latents, rows = parts(group, mesh)
  together = suite.layout_of(group, mesh).members
  oracle = config.backend == 'oracle' or not backends.is_plain(group.sae)
  arrays = _ORACLE_ARRAYS if together and oracle else _STEP_ARRAYS
  arrays *= config.stream.batch // rows * group.sae.width // latents
  one = 4 * (member_params(group) // latents + int(arrays))
  if together:
    return members * one
  # They step in turn (`step.py`), and the compiler lays all their decoders and
  # second moments out as the encoders are, in memory of their own.
  return one + 8 * members * group.sae.width * group.sae.d_out // latents
