"""The table of SAE variants.

Each variant has a row in `VARIANTS` and a module. The Matryoshka variants are
the exception: `matryoshka.py` makes them from other variants.
"""

from jumprelu.saes import (
    base,
    batch_topk,
    gated,
    jumprelu,
    jumprelu_quadratic,
    jumprelu_tanh,
    matryoshka,
    relu,
    relu_rescaled,
    topk,
)

VARIANTS: dict[str, tuple[type[base.Sae], type[base.Config]]] = {
    'jumprelu': (jumprelu.JumpRelu, jumprelu.Config),
    'relu': (relu.Relu, relu.Config),
    'relu_rescaled': (relu_rescaled.ReluRescaled, relu_rescaled.Config),
    'gated': (gated.Gated, gated.Config),
    'topk': (topk.TopK, topk.Config),
    'batch_topk': (batch_topk.BatchTopK, batch_topk.Config),
    'matryoshka_jumprelu': matryoshka.nest(jumprelu.JumpRelu, jumprelu.Config),
    'matryoshka_relu': matryoshka.nest(relu.Relu, relu.Config),
    'matryoshka_gated': matryoshka.nest(gated.Gated, gated.Config),
    'matryoshka_topk': matryoshka.nest(topk.TopK, topk.Config),
    'matryoshka_batch_topk': matryoshka.nest(
        batch_topk.BatchTopK, batch_topk.Config
    ),
    'jumprelu_quadratic': (
        jumprelu_quadratic.JumpReluQuadratic,
        jumprelu_quadratic.Config,
    ),
    'jumprelu_tanh': (jumprelu_tanh.JumpReluTanh, jumprelu_tanh.Config),
}


def make_sae(
    variant: str,
    config: base.Config,
    *,
    d_in: int,
    d_out: int,
    width: int,
    transcoder: bool = False,
    skip: bool = False,
) -> base.Sae:
  """Returns an SAE of a variant.

  Args:
    variant: A key of `VARIANTS`.
    config: The variant's config.
    d_in: The width of the inputs.
    d_out: The width of the targets.
    width: The number of latents.
    transcoder: Whether targets differ from inputs.
    skip: Whether the reconstruction has the additional term `inputs @ W_skip`.

  Raises:
    TypeError: The config is that of another variant.
  """
  cls, config_cls = VARIANTS[variant]
  if not isinstance(config, config_cls):
    raise TypeError(f'{variant} needs a {config_cls}, got {type(config)}')
  return cls(
      config=config,
      d_in=d_in,
      d_out=d_out,
      width=width,
      transcoder=transcoder,
      skip=skip,
  )
