"""Next-token losses in float32, from clean or spliced forward passes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jumprelu import sharding
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.lm import config as config_lib
from jumprelu.lm import gemma

# Logits of a chunk of positions may take this much of a device's memory, in
# bytes.
_CHUNK_BYTES = 1 << 28


def target_mask(
    segments: Int[Array, 'sequences positions'],
) -> Bool[Array, 'sequences positions']:
  """Returns where the next token belongs to the same document.

  The last position of a sequence has no target.
  """
  inside = (segments[:, :-1] == segments[:, 1:]) & (segments[:, :-1] > 0)
  return jnp.pad(inside, ((0, 0), (0, 1)))


def _num_chunks(shape, vocab, mesh):
  """Returns into how many equal chunks the positions are to be cut."""
  sequences, positions = shape
  if mesh is not None:
    sequences = -(-sequences // sharding.axis_size(mesh, 'sequences'))
    vocab = -(-vocab // sharding.axis_size(mesh, 'vocab'))
  for chunks in range(1, positions + 1):
    if positions % chunks == 0:
      if sequences * (positions // chunks) * vocab * 4 <= _CHUNK_BYTES:
        return chunks
  return positions


def _unembedder(config, params, mesh):
  """Returns what makes logits of the final norm's output, chunk by chunk."""
  # Once, not once a chunk, where the weights are cut over `data` as well.
  embedding = params['embedder']['input_embedding']
  embedding = sharding.constrain(embedding, mesh, 'vocab', None)
  whole = {'embedder': {'input_embedding': embedding}}
  return lambda hidden: gemma.unembed(config, whole, hidden)


def _by_chunks(function, chunks, *arrays):
  """Returns `function` of arrays [sequences, positions, ...], cut in time."""
  if chunks == 1:
    return function(arrays)
  shape = arrays[0].shape[:2]

  def split(x):
    parts = x.reshape(x.shape[0], chunks, -1, *x.shape[2:])
    return jnp.moveaxis(parts, 1, 0)

  parts = jax.lax.map(function, tuple(map(split, arrays)))
  return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(shape), parts)


def _next(tokens):
  """Returns the token after each; 0 after the last."""
  return jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)))


def losses(
    config: config_lib.LmConfig,
    params: gemma.Params,
    tokens: Int[Array, 'sequences positions'],
    *,
    segments: Int[Array, 'sequences positions'],
    mesh: Any = None,
    **kwargs: Any,
) -> Float[Array, 'sequences positions']:
  """Returns the loss (nats) of the next token at each source position.

  It is 0 where there is no target in the same document (`target_mask`).
  Arguments as of `hidden`.
  """
  found = hidden(config, params, tokens, segments=segments, mesh=mesh, **kwargs)
  unembed = _unembedder(config, params, mesh)

  def losses_of(chunk):
    hidden, targets = chunk
    logits = unembed(hidden)
    target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - target_logits[..., 0]

  chunks = _num_chunks(tokens.shape, config.vocab, mesh)
  by_position = _by_chunks(losses_of, chunks, found, _next(tokens))
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
    mesh: Any = None,
) -> Float[Array, 'sequences positions model']:
  """Returns the final norm's output.

  Args:
    config: The model's shapes.
    params: All of its parameters.
    tokens: Token ids.
    positions: Positions within each document.
    segments: Document numbers within each sequence, 0 for padding.
    inputs: The residual stream that enters block `first_layer`, if that part
      was run before; the embedded tokens if None.
    first_layer: The first block to run.
    splice: Replacements of activations (`gemma.run`).
    mesh: The device mesh.
  """
  if inputs is None and first_layer:
    raise ValueError('a run from a later block needs its inputs')
  found, _ = gemma.run(
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
  return found


class Comparison(NamedTuple):
  """How the predictions of a changed pass differ from the clean one's."""

  # KL(clean || changed) of the next token's distribution, in nats.
  divergence: Float[Array, 'sequences positions']
  # Losses of the next token, in whatever document; 0 at the last position.
  clean: Float[Array, 'sequences positions']
  changed: Float[Array, 'sequences positions']


def compare(
    config: config_lib.LmConfig,
    params: gemma.Params,
    clean: Float[Array, 'sequences positions model'],
    changed: Float[Array, 'sequences positions model'],
    *,
    tokens: Int[Array, 'sequences positions'],
    mesh: Any = None,
) -> Comparison:
  """Compares two passes by what `hidden` returned of them."""
  unembed = _unembedder(config, params, mesh)

  def compare_chunk(chunk):
    clean, changed, targets = chunk
    p = jax.nn.log_softmax(unembed(clean))
    q = jax.nn.log_softmax(unembed(changed))

    def loss(x):
      return -jnp.take_along_axis(x, targets[..., None], axis=-1)[..., 0]

    return Comparison((jnp.exp(p) * (p - q)).sum(-1), loss(p), loss(q))

  # Both passes' logits are held at a time.
  chunks = _num_chunks(tokens.shape, 2 * config.vocab, mesh)
  found = _by_chunks(compare_chunk, chunks, clean, changed, _next(tokens))
  last = jnp.arange(tokens.shape[1])[None] == tokens.shape[1] - 1
  return found._replace(
      clean=jnp.where(last, 0, found.clean),
      changed=jnp.where(last, 0, found.changed),
  )
