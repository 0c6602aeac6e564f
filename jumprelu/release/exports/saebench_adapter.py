"""SAEs as the objects that SAEBench evaluates; needs torch.

SAEBench's evaluations take pairs (name, object). An object has `encode`,
`decode` and `forward`, the arrays as parameters, `dtype`, `device`, and `cfg`,
which names the hook. This adapter makes one from any folder that this package
reads:

  sae = saebench_adapter.load('releases/layer2/PATH')
  core.multiple_evals(selected_saes=[('mine', sae)], ...)

Variants other than JumpReLU become the JumpReLU SAE that they equal.
"""

import dataclasses
import os
from typing import Any

from jumprelu import errors, extras
from jumprelu.release.exports import source as source_lib
from jumprelu.release.formats import hooks, record

NAME = 'saebench'
_CONTEXT = 128


@dataclasses.dataclass
class Config:
  """The fields that SAEBench reads from `cfg`."""

  model_name: str
  d_in: int
  d_sae: int
  hook_layer: int
  hook_name: str
  hook_head_index: int | None = None
  architecture: str = 'jumprelu'
  context_size: int = _CONTEXT
  dtype: str = 'float32'
  device: str = 'cpu'
  prepend_bos: bool = True
  apply_b_dec_to_input: bool = False
  normalize_activations: str = 'none'
  dataset_path: str = ''
  dataset_trust_remote_code: bool = False
  seqpos_slice: tuple[int | None, ...] = (None,)
  model_from_pretrained_kwargs: dict[str, Any] = dataclasses.field(
      default_factory=dict
  )

  def to_dict(self) -> dict[str, Any]:
    """Returns the fields."""
    return dataclasses.asdict(self)


def load(folder: str | os.PathLike[str], *, device: str = 'cpu') -> Any:
  """Returns the only SAE below a folder as a module of torch.

  Args:
    folder: The folder, in any format that this package reads.
    device: torch's device.

  Raises:
    MissingInputError: there is no SAE.
    UserError: there are several, the SAE is a transcoder, or it equals no
      JumpReLU SAE.
  """
  sources = source_lib.read(folder)
  if len(sources) > 1:
    raise errors.UserError(
        f'{folder}: has {len(sources)} SAEs; pass the folder of a single one'
    )
  (source,) = sources
  if source.transcodes:
    raise source.refuse(NAME, 'is a transcoder, which SAEBench cannot splice')
  params = source_lib.as_jumprelu(source, to=NAME)
  origin, sae = source.released.origin, source.released.sae
  config = Config(
      model_name=source_lib.model_name(source)[0],
      d_in=sae.d_in,
      d_sae=sae.width,
      hook_layer=int(origin.layer or 0),
      hook_name=hooks.hooks_of(origin)['transformer_lens'][0],
      device=device,
  )
  return _module(params, config)


def _module(params: record.Params, config: Config) -> Any:
  """Returns a module of torch with the arrays of a JumpReLU SAE."""
  with extras.imports():
    import torch  # pyright: ignore[reportMissingImports]

  class Module(torch.nn.Module):
    """The SAE."""

    # SAEBench flattens attention heads itself, and calls the method that
    # disables SAELens's flattening.
    hook_z_reshaping_mode = False

    def __init__(self):
      super().__init__()
      self.cfg = config
      for name, value in params.items():
        tensor = torch.tensor(value, device=config.device)
        setattr(self, name, torch.nn.Parameter(tensor, requires_grad=False))

    @property
    def dtype(self):
      return self.W_enc.dtype

    @property
    def device(self):
      return self.W_enc.device

    def turn_off_forward_pass_hook_z_reshaping(self):
      pass

    def encode(self, x):
      pre_acts = x.to(self.dtype) @ self.W_enc + self.b_enc
      return pre_acts * (pre_acts > self.threshold)

    def decode(self, latents):
      return latents @ self.W_dec + self.b_dec

    def forward(self, x):
      return self.decode(self.encode(x))

  return Module()
