"""The forward pass, with the `gemma` package's modules.

No other module of jumprelu imports the package.

The package's `Transformer.__call__` is wrapped in `nn.jit`, whose trace cache
does not depend on interceptors. A splice around the call would be silently
ignored, or would still be applied by later calls without a splice. The forward
pass of this module therefore calls the package's public submodules (`embedder`,
`blocks`, `final_norm`) directly, under the caller's `jit`, with explicit
positions and attention masks.
"""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from jumprelu import extras, sharding
from jumprelu.array_typing import Array, Float, Int
from jumprelu.files import output
from jumprelu.lm import attention, families, light_import, sites
from jumprelu.lm import config as config_lib

Site = sites.Site
Tap = sites.Tap
Params = Mapping[str, Any]
Splice = Mapping[Tap, Callable[[Array], Array]]


def _linen() -> Any:
  """Returns flax.linen, which only the extra `train` installs."""
  with extras.imports():
    from flax import linen
  return linen


@functools.cache
def make_module(config: config_lib.LmConfig) -> Any:
  """Returns the package's transformer for `config`."""
  # If TensorFlow is imported, it logs to stderr at every log level.
  with (
      extras.imports(),
      output.native_dropped(),
      light_import.without_tensorflow(),
  ):
    from gemma import gm
    from gemma.gm.nn import config as gemma_config

    _ = gm.nn.Transformer  # The package imports a module on its first use.

  kinds = {
      config_lib.LOCAL: gm.nn.AttentionType.LOCAL_SLIDING,
      config_lib.GLOBAL: gm.nn.AttentionType.GLOBAL,
  }
  scales = gemma_config.QueryPreAttentionNormalisation
  return gm.nn.Transformer(
      config=gemma_config.TransformerConfig(
          num_embed=config.vocab,
          embed_dim=config.d_model,
          hidden_dim=config.ffw,
          num_heads=config.heads,
          head_dim=config.head_dim,
          num_kv_heads=config.kv_heads,
          final_logit_softcap=config.logits_softcap,
          attn_logits_soft_cap=config.attention_softcap,
          sliding_window_size=config.window,
          use_qk_norm=config.qk_norm,
          local_base_frequency=config.local_rope.base,
          local_scale_factor=config.local_rope.scale,
          global_base_frequency=config.global_rope.base,
          global_scale_factor=config.global_rope.scale,
          transpose_gating_einsum=config.transposed_gating,
          query_pre_attn_norm=(
              scales.BY_ONE_OVER_SQRT_EMBED_DIM_DIV_NUM_HEADS
              if config.query_scale_by_model
              else scales.BY_ONE_OVER_SQRT_HEAD_DIM
          ),
          attention_types=tuple(kinds[kind] for kind in config.layer_kinds),
          **families.family_of(config).transformer,
      )
  )


@functools.cache
def param_shapes(config: config_lib.LmConfig) -> Params:
  """Returns a model's parameters as a tree of `ShapeDtypeStruct`."""
  module = make_module(config)
  tokens = jnp.ones((1, 4), jnp.int32)
  return jax.eval_shape(module.init, jax.random.key(0), tokens)['params']


def param_axes(config: config_lib.LmConfig) -> Params:
  """Returns the logical axes of every parameter, as a tree of tuples."""

  by_key = families.family_of(config).param_axes(config)

  def axes(path, leaf):
    key, _ = families.split_layer('/'.join(entry.key for entry in path))
    return by_key.get(key, (None,) * len(leaf.shape))

  return jax.tree_util.tree_map_with_path(axes, param_shapes(config))


@dataclasses.dataclass(frozen=True)
class _Span:
  """The part of the model to run, and the mesh of the activations."""

  first: int  # Index of the first block to run.
  last: int  # One past the last block to run.
  norm: bool  # Whether to apply the final norm.
  mesh: jax.sharding.Mesh | None = None


def _drive(module, inputs, positions, mask, *, span: _Span):
  """Returns the output of `span`; 2-D inputs are ids, others activations."""

  def constrain(x):
    return sharding.constrain(x, span.mesh, 'sequences', None, None)

  x = module.embedder.encode(inputs) if inputs.ndim == 2 else inputs
  x = constrain(x)
  for block in module.blocks[span.first : span.last]:
    _, x = block(x, positions, None, mask)
    x = constrain(x)
  return module.final_norm(x) if span.norm else x


def _replacing_attention(attend):
  """Returns a context that replaces the package's attention with `attend`.

  None keeps the package's attention.
  """
  if attend is None:
    return contextlib.nullcontext()
  with extras.imports():
    from gemma import gm

  def intercept(call, args, kwargs, context):
    called = (*context.module.path[1:], context.method_name)
    if called != ('attn', '__call__'):
      return call(*args, **kwargs)
    x, positions, cache, _ = args
    out = attention.apply_module(
        context.module, x, positions, rope=gm.math.apply_rope, attend=attend
    )
    return cache, out

  return _linen().intercept_methods(intercept)


def _interceptor(config, *, taps, splice, values, mesh):
  """Returns an interceptor that records `taps` and applies `splice`.

  A tap that is also spliced records the activation before its replacement.
  """
  site_of_path = families.family_of(config).site_of_path

  def visit(tap, x):
    flat = x.reshape(*x.shape[:2], -1)  # The heads are concatenated.
    if tap in taps:
      # Without the constraint a value may leave `jit` sharded over its last
      # axis.
      values[tap] = sharding.constrain(flat, mesh, 'sequences', None, None)
    if tap not in splice:
      return x
    return splice[tap](flat).reshape(x.shape).astype(x.dtype)

  def intercept(call, args, kwargs, context):
    path = context.module.path
    if (
        context.method_name != '__call__'
        or not path
        or not path[0].startswith('layer_')
        or path[1:] not in site_of_path
    ):
      return call(*args, **kwargs)
    tap = Tap(int(path[0].removeprefix('layer_')), site_of_path[path[1:]])
    if tap.site is Site.ATTN_HEADS:
      return call(args[0], visit(tap, args[1]), *args[2:], **kwargs)
    out = call(*args, **kwargs)
    if tap.site is Site.RESID_POST:
      return (out[0], visit(tap, out[1]))
    return visit(tap, out)

  return intercept


def _check_taps(taps, first, last):
  """Raises a ValueError unless all taps are in blocks first to last - 1."""
  outside = [tap for tap in taps if not first <= tap.layer < last]
  if outside:
    raise ValueError(f'taps outside of blocks {first}..{last - 1}: {outside}')


def run(
    config: config_lib.LmConfig,
    params: Params,
    inputs: Array,
    *,
    positions: Int[Array, 'sequences positions'],
    segments: Int[Array, 'sequences positions'],
    first_layer: int = 0,
    num_layers: int | None = None,
    final_norm: bool = False,
    taps: frozenset[Tap] = frozenset(),
    splice: Splice | None = None,
    attend: attention.Attend | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[Float[Array, 'sequences positions model'], dict[Tap, Array]]:
  """Runs a part of the model, inside the caller's `jit`.

  Args:
    config: The model's shapes.
    params: The model's parameters; blocks that are not run may be missing.
    inputs: Token ids, or the residual stream [sequences, positions, model]
      that enters block `first_layer`.
    positions: Positions within each document.
    segments: Document numbers within each sequence, 0 for padding.
    first_layer: The first block to run.
    num_layers: One past the last block to run; None runs all blocks.
    final_norm: Whether to apply the final norm to the result.
    taps: The activations to return.
    splice: Per tap, a function that receives the activations [sequences,
      positions, d_site] and returns their replacements.
    attend: The attention function; None chooses it by the sequences' length.
    mesh: The device mesh over which activations are sharded.

  Returns:
    The residual stream after the last block, through the final norm if
    requested, and the activations at `taps`, before any splice at the same tap.

  Raises:
    ValueError: if a tap or a splice is in a block that is not run.
  """
  splice = splice or {}
  last = config.layers if num_layers is None else num_layers
  _check_taps({*taps, *splice}, first_layer, min(last, config.layers))
  module, values = make_module(config), {}
  if attend is None:
    attend = attention.make(config, segments, mesh=mesh)
  options: Any = {'taps': taps, 'splice': splice, 'values': values}
  visit = _interceptor(config, **options, mesh=mesh)
  span = _Span(first_layer, last, final_norm, mesh)
  with _replacing_attention(attend), _linen().intercept_methods(visit):
    x: Any = module.apply(
        {'params': params},
        inputs,
        positions,
        attention.mask(segments) if attend is None else None,
        method=functools.partial(_drive, span=span),
    )
  if set(values) != set(taps):
    raise ValueError(f'taps not visited: {set(taps) - set(values)}')
  return x, values


def package_logits(
    config: config_lib.LmConfig,
    params: Params,
    tokens: Int[Array, 'sequences positions'],
) -> Float[Array, 'sequences positions vocab']:
  """Returns the logits of the package's own forward pass, without its `nn.jit`.

  This is for checks only, because the package computes masks and positions from
  the token ids: id 0 is padding, and each row is one document.
  """
  module = make_module(config)
  call = inspect.unwrap(type(module).__call__)
  return module.apply({'params': params}, tokens, method=call).logits


def uncapped_logits(
    params: Params, hidden: Float[Array, '*batch model']
) -> Float[Array, '*batch vocab']:
  """Returns the logits before any soft cap, in float32."""
  embedding = params['embedder']['input_embedding']
  return jnp.einsum(
      '...d,vd->...v', hidden, embedding, preferred_element_type=jnp.float32
  )


def soft_cap(
    config: config_lib.LmConfig, logits: Float[Array, '*shape']
) -> Float[Array, '*shape']:
  """Returns soft-capped logits; unchanged if the model has no cap."""
  cap = config.logits_softcap
  return logits if cap is None else cap * jnp.tanh(logits / cap)


def unembed(
    config: config_lib.LmConfig,
    params: Params,
    hidden: Float[Array, '*batch model'],
) -> Float[Array, '*batch vocab']:
  """Returns the logits, in float32, of outputs of the final norm.

  The logits are soft-capped if the model has a cap.
  """
  return soft_cap(config, uncapped_logits(params, hidden))
