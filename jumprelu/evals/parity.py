"""Comparison of our language model with transformers, site by site.

Both models run the same tokens in float32, from the same Hugging Face folder or
GGUF file.
Several documents share a row, as in training, so transformers gets positions
and attention masks explicitly.
"""

from collections.abc import Mapping, Sequence
import itertools
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import extras, lm
from jumprelu.array_typing import Int32
from jumprelu.data import packing
from jumprelu.files import json_files

LOGITS = 'logits'
# The largest difference that is not marked, relative to an array's largest
# value. Summing float32 values in another order makes a smaller difference.
TOLERANCE = 1e-4


class Row(NamedTuple):
  """Difference between one of our arrays and transformers'."""

  site: str
  layer: int | None  # None for the logits.
  difference: float  # Largest absolute difference.
  largest: float  # Largest absolute value in transformers' array.

  @property
  def relative(self) -> float:
    """Returns the difference as a share of the largest value."""
    return self.difference / max(self.largest, 1e-30)


def key(tap: lm.Tap) -> str:
  """Returns the name of a tap's array."""
  return f'{tap.site}_{tap.layer}'


def all_taps(config: lm.LmConfig) -> tuple[lm.Tap, ...]:
  """Returns every tap of every layer."""
  pairs = itertools.product(range(config.layers), lm.Site)
  return tuple(lm.Tap(layer, site) for layer, site in pairs)


def make_tokens(
    vocab: int, length: int, *, seed: int = 0
) -> Int32[np.ndarray, 'sequences positions']:
  """Returns three rows of random ids.

  The first is one document, the second has several documents, and the third is
  one document followed by padding.
  """
  rng = np.random.RandomState(seed)
  rows = rng.randint(packing.UNK + 1, vocab, (3, length)).astype(np.int32)
  rows[:, 0] = packing.BOS
  for start in (length // 3, length // 2 + 1):
    rows[1, start - 1 : start + 1] = packing.EOS, packing.BOS
  rows[2, length - length // 4 :] = packing.PAD
  return rows


def ours(
    model: lm.LanguageModel, tokens: Int32[np.ndarray, 'sequences positions']
) -> dict[str, np.ndarray]:
  """Returns our logits and the value of every tap, by name."""
  places: Any = {
      'positions': jnp.asarray(packing.positions(tokens)),
      'segments': jnp.asarray(packing.segments(tokens)),
  }
  taps = all_taps(model.config)

  @jax.jit
  def forward(params, tokens):
    values = lm.activations(model, params, tokens, taps=taps, **places)
    return values, lm.logits(model, params, tokens, **places)

  # By default, accelerators round the factors of float32 products to bfloat16.
  with jax.default_matmul_precision('float32'):
    values, logits = jax.device_get(forward(model.params, jnp.asarray(tokens)))
  arrays = {key(tap): np.asarray(value) for tap, value in values.items()}
  return arrays | {LOGITS: np.asarray(logits)}


def theirs(
    path: str | os.PathLike[str],
    tokens: Int32[np.ndarray, 'sequences positions'],
) -> dict[str, np.ndarray]:
  """Returns the same arrays as `ours`, computed by transformers.

  Hooks on the modules record the values of the taps.

  Raises:
    MissingExtraError: if transformers or torch is not installed.
    UserError, MissingInputError, DataError: as in `lm.get_config`.
  """
  torch, transformers = _import()
  config = lm.get_config(os.fspath(path))
  family = lm.FAMILIES[config.family]
  model = _load(torch, transformers, pathlib.Path(path), family)
  values = {}
  # Models that also read images have the language model as a submodule.
  text = getattr(model.model, 'language_model', model.model)
  for tap in all_taps(config):
    name = family.hook_names[tap.site].huggingface.format(layer=tap.layer)
    _record(values, tap, text, name.removeprefix('model.'))
  masks = _masks(torch, tokens, window=config.window)
  with torch.no_grad():
    out = model(
        input_ids=torch.from_numpy(tokens.astype(np.int64)),
        position_ids=torch.from_numpy(
            np.asarray(packing.positions(tokens), np.int64)
        ),
        attention_mask=masks,
        use_cache=False,
    )
  arrays = {key(tap): x.numpy().copy() for tap, x in values.items()}
  # The file may have rows that belong to no token.
  return arrays | {LOGITS: out.logits[..., : config.vocab].numpy().copy()}


def _import() -> tuple[Any, Any]:
  with extras.imports():
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]
  transformers.logging.disable_progress_bar()
  return torch, transformers


def _load(torch, transformers, path, family):
  """Returns transformers' model of a folder or GGUF file, in float32."""
  classes = family.huggingface.model_classes
  if path.is_file():
    with extras.imports():
      import accelerate  # noqa: F401  # pyright: ignore[reportMissingImports]
    # The first class is that of models without images.
    folder, model_class = path.parent, next(iter(classes.values()))
    arguments = {'gguf_file': path.name}
  else:
    fields = json_files.read_json(path / 'config.json')
    folder, model_class = path, classes[fields['model_type']]
    arguments = {'use_safetensors': True}
  return (
      getattr(transformers, model_class)
      .from_pretrained(
          os.fspath(folder),
          dtype=torch.float32,
          # The default attention would ignore the soft cap of its logits.
          attn_implementation='eager',
          local_files_only=True,
          **arguments,
      )
      .eval()
  )


def _record(values, tap, model, name):
  """Registers a hook that stores a tap's value whenever `model` runs.

  `name` is 'MODULE.input' or 'MODULE.output'.
  """
  path, _, end = name.rpartition('.')
  module = model.get_submodule(path)

  def after(module, args, out):
    values[tap] = (out[0] if isinstance(out, tuple) else out).detach()

  def before(module, args):
    values[tap] = args[0].detach()

  if end == 'input':
    module.register_forward_pre_hook(before)
  else:
    module.register_forward_hook(after)


def _masks(torch, tokens, *, window):
  """Returns additive attention masks, by kind of layer."""
  segments = np.asarray(packing.segments(tokens))
  index = np.arange(tokens.shape[1])
  distance = index[:, None] - index[None, :]
  same = segments[:, :, None] == segments[:, None, :]
  causal = same & (segments > 0)[:, :, None] & (distance >= 0)[None]
  visible = {
      'full_attention': causal,
      # A position sees `window` keys, including its own.
      'sliding_attention': causal & (distance < window)[None],
  }
  lowest = np.finfo(np.float32).min
  return {
      kind: torch.from_numpy(
          np.where(mask, np.float32(0), lowest)[:, None].astype(np.float32)
      )
      for kind, mask in visible.items()
  }


def compare(
    actual: Mapping[str, np.ndarray],
    wanted: Mapping[str, np.ndarray],
    *,
    tokens: Int32[np.ndarray, 'sequences positions'],
    config: lm.LmConfig,
) -> list[Row]:
  """Returns each array's difference at positions other than padding."""
  text = tokens != packing.PAD
  names = [(key(tap), str(tap.site), tap.layer) for tap in all_taps(config)]
  rows = []
  for name, site, layer in [*names, (LOGITS, LOGITS, None)]:
    expected = wanted[name][text]
    difference = np.abs(actual[name][text] - expected).max()
    rows.append(
        Row(site, layer, float(difference), float(np.abs(expected).max()))
    )
  return rows


def table(rows: Sequence[Row], tolerance: float = TOLERANCE) -> str:
  """Returns an aligned table; differences beyond `tolerance` are marked."""
  lines = [
      f'{"site":<12}{"layer":>6}{"max abs":>12}{"largest":>12}{"share":>12}'
  ]
  for row in rows:
    layer = '' if row.layer is None else row.layer
    lines.append(
        f'{row.site:<12}{layer:>6}{row.difference:>12.3g}{row.largest:>12.4g}'
        f'{row.relative:>12.3g}{"  beyond" * (not row.relative <= tolerance)}'
    )
  return '\n'.join(lines)
