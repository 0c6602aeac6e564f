"""Export to circuit-tracer: a transcoder set, config.yaml and a file per layer.

The set reads the hook that the transcoders were trained on:
`ln2.hook_normalized`, the norm before its gain, or `mlp.hook_in`, after it.
circuit-tracer wants a transcoder of equal width for every layer from 0.
"""

from collections.abc import Sequence
import json
import pathlib

from jumprelu import errors
from jumprelu.files import json_files
from jumprelu.release.exports import source as source_lib
from jumprelu.release.formats import hooks
from jumprelu.release.formats.circuit_tracer import CONFIG, THRESHOLD

NAME = 'circuit_tracer'


def write(sources: Sequence[source_lib.Source], out: pathlib.Path) -> list[str]:
  """Writes the transcoders as one set; returns warnings.

  Raises:
    UserError: an SAE cannot be part of a set; the message names it.
  """
  layers: dict[int | None, source_lib.Source] = {}
  for source in sources:
    layer = source.released.origin.layer
    if not source.transcodes:
      raise source.refuse(NAME, 'no transcoder, and a set holds no other SAEs')
    if layer in layers:
      raise errors.UserError(
          f'--to={NAME}: {layers[layer].path} and {source.path} are both of'
          f' layer {layer}, and a set has one per layer: choose with --members'
      )
    layers[layer] = source
  first = sources[0]
  source_hook, target_hook = _hooks(first)
  model, warnings = source_lib.model_name(first)
  for source in sources:
    if _hooks(source) != (source_hook, target_hook):
      raise source.refuse(NAME, f'reads another hook than {first.path}')
    _write_layer(source, out)
  fields = {
      'model_name': model if warnings else f'google/{model}',
      'model_kind': 'transcoder_set',
      'feature_input_hook': source_hook,
      'feature_output_hook': target_hook,
      'scan': f'{model}-jumprelu',
  }
  # Texts of JSON are texts of YAML.
  lines = [f'{name}: {json.dumps(value)}\n' for name, value in fields.items()]
  json_files.write_text(out / CONFIG, ''.join(lines))
  return warnings + _warnings(sources, source_hook)


def _hooks(source: source_lib.Source) -> tuple[str, ...]:
  """Returns the names of input and target below the block."""
  names = hooks.hooks_of(source.released.origin)['transformer_lens']
  prefix = f'blocks.{source.released.origin.layer}.'
  return tuple(str(name).removeprefix(prefix) for name in names)


def _write_layer(source: source_lib.Source, out: pathlib.Path) -> None:
  sae = source.released.sae
  if sae.d_in != sae.d_out:
    raise source.refuse(
        NAME, f'has {sae.d_in} inputs and {sae.d_out} outputs, wanted as many'
    )
  params = source_lib.as_jumprelu(source, to=NAME)
  arrays = {name: params[name] for name in ('b_enc', 'W_dec', 'b_dec')}
  arrays['W_enc'] = params['W_enc'].T
  if 'W_skip' in params:
    arrays['W_skip'] = params['W_skip'].T
  # Without thresholds the reader applies a ReLU.
  if params['threshold'].any():
    arrays[THRESHOLD] = params['threshold']
  name = f'layer_{source.released.origin.layer}.safetensors'
  source_lib.write_safetensors(out / name, arrays)


def _warnings(
    sources: Sequence[source_lib.Source], source_hook: str
) -> list[str]:
  warnings = []
  layers = sorted(int(s.released.origin.layer or 0) for s in sources)
  if layers != list(range(len(layers))):
    numbers = ', '.join(map(str, layers))
    warnings.append(
        'circuit-tracer wants a transcoder for every layer from 0; this set has'
        f' layers {numbers}. Export a folder with the releases of all layers'
    )
  widths = sorted({source.released.sae.width for source in sources})
  if len(widths) > 1:
    warnings.append(f'circuit-tracer wants equal widths; this set has {widths}')
  if len({source.released.sae.skip for source in sources}) > 1:
    warnings.append('circuit-tracer wants a skip term in all layers or in none')
  if source_hook == 'mlp.hook_in':
    warnings.append(
        'the set reads mlp.hook_in, which circuit-tracer maps for Gemma 3 and'
        ' not for Gemma 2'
    )
  return warnings
