"""Next-token losses in float32, from clean or spliced forward passes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import sharding
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.lm import config as config_lib
from jumprelu.lm import gemma

# Bytes on a device that the logits of one chunk of positions may use.
_CHUNK_BYTES = 1 << 28
# Rows of logits on a CPU, where the memory of larger arrays is slow to obtain.
_CPU_ROWS = 512


def target_mask(
    segments: Int[Array, 'sequences positions'],
) -> Bool[Array, 'sequences positions']:
  """Returns a mask of positions whose next token is in the same document.

  The last position of a sequence has no next token and is masked.
  """
  inside = (segments[:, :-1] == segments[:, 1:]) & (segments[:, :-1] > 0)
  return jnp.pad(inside, ((0, 0), (0, 1)))


def _num_chunks(shape, vocab, mesh):
  """Returns the least number of equal chunks within the limits of memory."""
  sequences, positions = shape
  limit = _CHUNK_BYTES
  if sharding.platform(mesh) == 'cpu':
    limit = min(limit, _CPU_ROWS * vocab * 4)
  if mesh is not None:
    sequences = -(-sequences // sharding.axis_size(mesh, 'sequences'))
    vocab = -(-vocab // sharding.axis_size(mesh, 'vocab'))
  for chunks in range(1, positions + 1):
    if positions % chunks == 0:
      if sequences * (positions // chunks) * vocab * 4 <= limit:
        return chunks
  return positions


def _unembedder(params, mesh):
  """Returns a function from the final norm's output to uncapped logits."""
  # If the weights are sharded over `data`, this constraint gathers the
  # embedding once instead of once per chunk.
  embedding = params['embedder']['input_embedding']
  embedding = sharding.constrain(embedding, mesh, 'vocab', None)
  whole = {'embedder': {'input_embedding': embedding}}
  return lambda hidden: gemma.uncapped_logits(whole, hidden)


def _by_chunks(function, chunks, *arrays):
  """Returns `function(arrays)`, computed for a chunk of positions at a time.

  The arrays are [sequences, positions, ...] and the results, which may be a
  pytree, are [sequences, positions].
  """
  if chunks == 1:
    return function(arrays)
  shape = arrays[0].shape[:2]

  def split(x):
    parts = x.reshape(x.shape[0], chunks, -1, *x.shape[2:])
    return jnp.moveaxis(parts, 1, 0)

  parts = jax.lax.map(function, tuple(map(split, arrays)))
  return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(shape), parts)


def _next(tokens):
  """Returns each position's next token; 0 at the last position."""
  return jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)))


def of_logits(
    logits: Float[Array, '*batch vocab'], targets: Int[Array, '*batch']
) -> Float[Array, '*batch']:
  """Returns the loss in nats of each target."""
  target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)
  return jax.nn.logsumexp(logits, axis=-1) - target_logits[..., 0]


def _of_uncapped(config, logits, targets):
  """Returns the loss in nats of each target, from logits before the soft cap.

  The cap is applied within the sum over the vocabulary, so that no array of
  capped logits is written. The cap is monotone, so the largest logit is the cap
  of the largest uncapped one.
  """

  def cap(x):
    return gemma.soft_cap(config, x)

  largest = jax.lax.stop_gradient(cap(logits.max(-1)))
  largest = jnp.where(jnp.isfinite(largest), largest, 0)
  total = jnp.exp(cap(logits) - largest[..., None]).sum(-1)
  target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  return jnp.log(total) + largest - cap(target)


def losses(
    config: config_lib.LmConfig,
    params: gemma.Params,
    tokens: Int[Array, 'sequences positions'],
    *,
    segments: Int[Array, 'sequences positions'],
    mesh: jax.sharding.Mesh | None = None,
    **kwargs: Any,
) -> Float[Array, 'sequences positions']:
  """Returns the loss, in nats, of the next token at each position.

  The loss is 0 where the next token is not in the same document
  (`target_mask`). Other arguments are those of `hidden`.
  """
  final = hidden(config, params, tokens, segments=segments, mesh=mesh, **kwargs)
  unembed = _unembedder(params, mesh)

  def losses_of(chunk):
    hidden, targets = chunk
    return _of_uncapped(config, unembed(hidden), targets)

  chunks = _num_chunks(tokens.shape, config.vocab, mesh)
  by_position = _by_chunks(losses_of, chunks, final, _next(tokens))
  return jnp.where(target_mask(segments), by_position, 0.0)


def hidden(
    config: config_lib.LmConfig,
    params: gemma.Params,
    tokens: Int[Array, 'sequences positions'],
    *,
    positions: Int[Array, 'sequences positions'],
    segments: Int[Array, 'sequences positions'],
    inputs: Float[Array, 'sequences positions model'] | None = None,
    first_layer: int = 0,
    splice: gemma.Splice | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Float[Array, 'sequences positions model']:
  """Returns the final norm's output.

  Args:
    config: The model's shapes.
    params: The model's parameters; blocks that are not run may be missing.
    tokens: Token ids.
    positions: Positions within each document.
    segments: Document numbers within each sequence, 0 for padding.
    inputs: The residual stream that enters block `first_layer`, if the earlier
      blocks were already run; None to embed the tokens.
    first_layer: The first block to run; must be 0 without `inputs`.
    splice: Functions that replace activations, as in `gemma.run`.
    mesh: The device mesh over which activations are sharded.

  Raises:
    ValueError: if `first_layer` is above 0 and there are no `inputs`.
  """
  if inputs is None and first_layer:
    raise ValueError(
        f'first_layer={first_layer}: pass `inputs`, the residual stream that'
        ' enters this block'
    )
  output, _ = gemma.run(
      config,
      params,
      tokens if inputs is None else inputs,
      positions=positions,
      segments=segments,
      first_layer=first_layer,
      final_norm=True,
      splice=splice,
      mesh=mesh,
  )
  return output


class Comparison(NamedTuple):
  """A comparison of the predictions of a clean and a changed forward pass."""

  # KL(clean || changed) between the distributions of the next token, in nats.
  divergence: Float[Array, 'sequences positions']
  # Losses of the next token in nats, even where it is in another document; 0 at
  # the last position.
  clean: Float[Array, 'sequences positions']
  changed: Float[Array, 'sequences positions']


def compare(
    config: config_lib.LmConfig,
    params: gemma.Params,
    clean: Float[Array, 'sequences positions model'],
    changed: Float[Array, 'sequences positions model'],
    *,
    tokens: Int[Array, 'sequences positions'],
    mesh: jax.sharding.Mesh | None = None,
) -> Comparison:
  """Returns the comparison of two passes, from their outputs of `hidden`."""
  unembed = _unembedder(params, mesh)

  def log_softmax(hidden):
    return jax.nn.log_softmax(gemma.soft_cap(config, unembed(hidden)))

  def compare_chunk(chunk):
    clean, changed, targets = chunk
    p, q = log_softmax(clean), log_softmax(changed)

    def loss(x):
      return -jnp.take_along_axis(x, targets[..., None], axis=-1)[..., 0]

    return Comparison((jnp.exp(p) * (p - q)).sum(-1), loss(p), loss(q))

  # Twice the vocabulary, because both passes' logits are in memory at once.
  chunks = _num_chunks(tokens.shape, 2 * config.vocab, mesh)
  comparison = _by_chunks(compare_chunk, chunks, clean, changed, _next(tokens))
  last = jnp.arange(tokens.shape[1])[None] == tokens.shape[1] - 1
  return comparison._replace(
      clean=jnp.where(last, 0, comparison.clean),
      changed=jnp.where(last, 0, comparison.changed),
  )
