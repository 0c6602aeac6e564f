"""Attention without the scores of all pairs of positions in memory.

The gemma package's own attention, the `dense` form, computes an array
[sequences, positions, heads, positions] of scores. Two other forms have the
same result up to rounding: `chunked` is the package's arithmetic for a chunk of
queries at a time, and `splash` is the TPU kernel that is part of JAX. Unlike
JAX's GPU kernels for whole sequences, it supports Gemma 2's soft cap on scores.
"""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import sharding
from jumprelu.array_typing import Array, Bool, Float, Int
from jumprelu.lm import config as config_lib

# Up to this many positions the scores are small, and `dense` is fastest.
_DENSE_POSITIONS = 512
# Queries per chunk: the scores are [sequences, 128, heads, positions].
_CHUNK = 128
# The kernel's tile sizes; the largest that divides the length is used.
_TILES = (512, 256, 128)
# The width of a TPU's vectors. The kernel requires that it divides the number
# of positions and the size of a head.
_LANES = 128
# The score of masked positions, as in the package.
_MASKED = -2.3819763e38

# (queries, keys, values, window) -> the heads' outputs.
Attend = Callable[[Array, Array, Array, int | None], Array]


def mask(
    segments: Int[Array, 'sequences positions'],
) -> Bool[Array, 'sequences positions positions']:
  """Returns a mask [query, key], True where the query attends to the key.

  A query attends to itself and to earlier positions of its document. Segment 0
  is padding, which neither attends nor is attended to.
  """
  same = segments[:, :, None] == segments[:, None, :]
  causal = jnp.tril(jnp.ones(same.shape[1:], bool))
  return same & causal[None] & (segments > 0)[:, :, None]


def choose(config: config_lib.LmConfig, positions: int, platform: str) -> str:
  """Returns the form of attention for sequences of `positions`.

  Args:
    config: The model's shapes; its `attention` may name the form.
    positions: The length of the sequences.
    platform: 'cpu', 'gpu' or 'tpu'.

  Raises:
    ValueError: if the config names an unknown form, or the kernel does not
      support the shapes.
  """
  fits = positions % _LANES == 0 and config.head_dim % _LANES == 0
  if config.attention == 'splash' and not fits:
    raise ValueError(
        f'attention=splash needs positions ({positions}) and head_dim'
        f' ({config.head_dim}) that are multiples of {_LANES}'
    )
  if config.attention not in config_lib.ATTENTION:
    raise ValueError(
        f'attention={config.attention!r}: must be one of {config_lib.ATTENTION}'
    )
  if config.attention != 'auto':
    return config.attention
  if positions <= _DENSE_POSITIONS:
    return 'dense'
  return 'splash' if platform == 'tpu' and fits else 'chunked'


def make(
    config: config_lib.LmConfig,
    segments: Int[Array, 'sequences positions'],
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> Attend | None:
  """Returns the attention function; None for the package's own attention."""
  form = choose(config, segments.shape[1], sharding.platform(mesh))
  options = {'segments': segments, 'softcap': config.attention_softcap}
  if form == 'splash':
    return functools.partial(splash, **options, mesh=mesh)
  return functools.partial(chunked, **options) if form == 'chunked' else None


def rows_of_scores(
    config: config_lib.LmConfig, positions: int, platform: str
) -> int:
  """Returns the number of queries whose scores are in memory at once.

  It is 0 for the kernel, which writes no scores to memory.
  """
  form = choose(config, positions, platform)
  return {'dense': positions, 'chunked': _CHUNK, 'splash': 0}[form]


def self_check(config: config_lib.LmConfig) -> float:
  """Returns the largest difference between the kernel and `chunked`.

  The difference is relative to the largest output of `chunked`. It is 0 if long
  sequences do not use the kernel.
  """
  length = 2 * _DENSE_POSITIONS
  if choose(config, length, jax.default_backend()) != 'splash':
    return 0.0
  shape = (1, length, config.kv_heads, config.head_dim)
  q_shape = (1, length, config.heads, config.head_dim)
  keys = jax.random.split(jax.random.key(0), 3)
  q, k, v = map(jax.random.normal, keys, (q_shape, shape, shape))
  segments = jnp.where(jnp.arange(length) < length // 3, 1, 2)[None]
  options = {'segments': segments, 'softcap': config.attention_softcap}
  worst = 0.0
  for window in (None, min(config.window, length // 4)):
    kernel = jax.jit(functools.partial(splash, window=window, **options))
    reference = jax.jit(functools.partial(chunked, window=window, **options))
    with jax.default_matmul_precision('float32'):
      expected = reference(q, k, v)
    ratio = relative_difference(kernel(q, k, v), expected)
    worst = float(np.maximum(worst, ratio))  # Unlike `max`, it keeps NaN.
  return worst


def relative_difference(
    actual: Float[Array, '*shape'], expected: Float[Array, '*shape']
) -> Float[Array, '']:
  """Returns max |actual - expected| / max |expected|, NaN if any is NaN.

  NaN is checked separately, because XLA's maximum of a large array drops it on
  a CPU.
  """
  difference = jnp.abs(actual - expected)
  ratio = difference.max() / jnp.abs(expected).max()
  return jnp.where(jnp.isnan(difference).any(), jnp.nan, ratio)


def apply_module(
    module: Any,
    x: Float[Array, 'sequences positions model'],
    positions: Int[Array, 'sequences positions'],
    *,
    rope: Callable[..., Array],
    attend: Attend,
) -> Float[Array, 'sequences positions model']:
  """Returns the output of the package's `Attention` module, using `attend`.

  The submodules are applied as in the module's `__call__`, but without a cache
  of keys and values.
  """
  if module.use_qkv_einsum:
    q, k, v = module.qkv_einsum('BTD,SNDH->SBTNH', x)
  else:
    q = module.q_einsum('BTD,NDH->BTNH', x)
    k, v = module.kv_einsum('BSD,CKDH->CBSKH', x)
  if module.use_qk_norm:
    q, k = module._query_norm(q), module._key_norm(k)
  rotate = functools.partial(
      rope,
      positions=positions,
      base_frequency=module.rope_base_frequency,
      scale_factor=module.rope_scale_factor,
  )
  local = module.attn_type.name == 'LOCAL_SLIDING'
  window = module.sliding_window_size if local else None
  encoded = attend(
      rotate(q) * module.query_pre_attn_scalar, rotate(k), v, window
  )
  return module.attn_vec_einsum('BTNH,NHD->BTD', encoded)


def chunked(
    q: Float[Array, 'sequences positions heads size'],
    k: Float[Array, 'sequences positions kv_heads size'],
    v: Float[Array, 'sequences positions kv_heads size'],
    window: int | None,
    *,
    segments: Int[Array, 'sequences positions'],
    softcap: float | None,
) -> Float[Array, 'sequences positions heads size']:
  """Returns the heads' outputs, computed for `_CHUNK` queries at a time.

  Gradients recompute each chunk. `window` is applied to the indices in the
  sequence, because positions within a document are consecutive; None attends to
  all earlier positions of the document.
  """
  sequences, length, heads, size = q.shape
  rest = -length % _CHUNK

  def split(x):
    x = jnp.pad(x, ((0, 0), (0, rest)) + ((0, 0),) * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(sequences, -1, _CHUNK, *x.shape[2:]), 1, 0)

  @jax.checkpoint
  def part(chunk):
    q, documents, index = chunk
    distance = index[:, None] - jnp.arange(length)[None]
    near = (distance >= 0) & (distance < (window or length))
    seen = documents[:, :, None] == segments[:, None, :]
    seen &= near[None] & (documents > 0)[:, :, None]
    scores = jnp.einsum('BTKGH,BSKH->BTKGS', q, k)
    if softcap is not None:
      scores = softcap * jnp.tanh(scores / softcap)
    scores = jnp.where(seen[:, :, None, None], scores, _MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(k.dtype)
    return jnp.einsum('BTKGS,BSKH->BTKGH', weights, v)

  grouped = q.reshape(sequences, length, k.shape[2], -1, size)
  index = jnp.arange(length + rest).reshape(-1, _CHUNK)
  chunks = jax.lax.map(part, (split(grouped), split(segments), index))
  outputs = jnp.moveaxis(chunks, 0, 1).reshape(sequences, -1, heads, size)
  return outputs[:, :length]


def splash(
    q: Float[Array, 'sequences positions heads size'],
    k: Float[Array, 'sequences positions kv_heads size'],
    v: Float[Array, 'sequences positions kv_heads size'],
    window: int | None,
    *,
    segments: Int[Array, 'sequences positions'],
    softcap: float | None,
    mesh: jax.sharding.Mesh | None = None,
) -> Float[Array, 'sequences positions heads size']:
  """Returns the heads' outputs from the TPU kernel.

  On other platforms the kernel is interpreted, for tests. The kernel sums in
  float32 for all input types. Padding attends to padding, unlike in `chunked`,
  because the kernel only compares segments; these outputs are not used.
  """
  heads = q.shape[2]
  parts = 1 if mesh is None else sharding.axis_size(mesh, 'heads')
  if heads % parts == 0 and k.shape[2] % parts:
    # The query heads are sharded. The kv heads cannot be, because their number
    # is not a multiple of `parts`. They are repeated, one copy per query head,
    # so that each device has the kv heads of its query heads.
    k, v = (jnp.repeat(x, heads // x.shape[2], axis=2) for x in (k, v))
  kernel = functools.partial(
      _kernel,
      window=window,
      softcap=softcap,
      interpret=sharding.platform(mesh) != 'tpu',
  )
  # The kernel reads [heads, positions, size].
  q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
  run = _on_each_device(kernel, mesh, q, k, v, segments)
  return jnp.swapaxes(run(q, k, v, segments), 1, 2)


def _on_each_device(kernel, mesh, *arrays):
  """Returns a function that runs the kernel on each device's shard.

  `shard_map` is needed because XLA cannot partition the kernel.
  """
  if sharding.is_single_device(mesh):
    return kernel
  axes = ('sequences', 'heads', None, None)
  # The second axis of segments [sequences, positions] is not sharded.
  specs = [
      sharding.named(mesh, *names, shape=x.shape).spec
      for names, x in zip([axes] * 3 + [axes[::2]], arrays, strict=True)
  ]
  return jax.shard_map(
      kernel,
      mesh=mesh,
      in_specs=tuple(specs),
      out_specs=specs[0],
      check_vma=False,
  )


def _kernel(q, k, v, segments, *, window, softcap, interpret):
  """Returns the outputs; like q, k, v: [sequences, heads, positions, size]."""
  # Imported here because it is slow to import and only this form needs it.
  from jax.experimental.pallas.ops.tpu import splash_attention as library

  heads, length = q.shape[1:3]
  shape = (length, length)
  if window is None or window >= length:
    seen = library.CausalMask(shape)
  else:
    seen = library.LocalMask(shape, (window - 1, 0), offset=0)
  tile = next(tile for tile in _TILES if length % tile == 0)
  run = library.make_splash_mha(
      library.MultiHeadMask([seen] * heads),
      block_sizes=library.BlockSizes(
          **dict.fromkeys(
              (
                  'block_q', 'block_kv', 'block_q_dkv', 'block_kv_dkv',
                  'block_q_dq', 'block_kv_dq',
              ),  # fmt: skip
              tile,
          )
      ),
      head_shards=1,
      q_seq_shards=1,
      attn_logits_soft_cap=softcap,
      interpret=interpret,
  )
  ids = library.SegmentIds(segments, segments)
  # Any, because the kernel's type includes residuals, which are not returned.
  outputs: Any = jax.vmap(run)(q, k, v, segment_ids=ids)
  return outputs
