"""Export to dictionary_learning: ae.pt and config.json.

`dictionary_learning.utils.load_dictionary(folder, device='cpu')` loads each
folder. TopK SAEs become an AutoEncoderTopK, and all others the
JumpReluAutoEncoder that they equal, the only class without a pre-encoder bias
and without conversion of the decoder. The library subtracts the decoder bias
before the encoder of a TopK SAE, which the export adds to the encoder's bias.

`ae.pt` is written without torch (`files/torch_zip.py`), so that the command
needs no further library and equal SAEs result in equal files.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from jumprelu.files import json_files, torch_zip
from jumprelu.release import layout
from jumprelu.release.exports import source as source_lib
from jumprelu.release.formats import record
from jumprelu.release.formats.dictionary_learning import PARAMS

NAME = 'dictionary_learning'


def write(sources: Sequence[source_lib.Source], out: pathlib.Path) -> list[str]:
  """Writes a folder for each SAE; returns warnings.

  Raises:
    UserError: the library has no such SAE; the message names it.
  """
  warnings = []
  for source in sources:
    sae, origin = source.released.sae, source.released.origin
    if source.transcodes:
      raise source.refuse(NAME, 'the library has no transcoders')
    kind, tensors, extra = _convert(source)
    model, notes = source_lib.model_name(source)
    warnings += notes
    folder = out / source.name
    folder.mkdir(parents=True)
    torch_zip.write(folder / PARAMS, tensors)
    trainer = {
        'dict_class': kind,
        'activation_dim': sae.d_in,
        'dict_size': sae.width,
        'layer': origin.layer,
        'lm_name': model if notes else f'google/{model}',
        'submodule_name': f'{origin.site}_layer_{origin.layer}',
        'seed': source.released.meta.get('seed'),
        'steps': source.results.get('steps'),
        'jumprelu': {'path': source.path, 'variant': sae.variant},
    }
    corpus = source.released.training.get('corpus') or {}
    buffer = {'d_submodule': sae.d_in, 'io': 'out'}
    if 'sequence_length' in corpus:
      buffer['ctx_len'] = corpus['sequence_length']
    json_files.write_json(
        folder / layout.CONFIG, {'trainer': trainer | extra, 'buffer': buffer}
    )
  return warnings


def _convert(
    source: source_lib.Source,
) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
  """Returns the class, its tensors, and fields that only it has."""
  if source.released.sae.variant.removeprefix('matryoshka_') == 'topk':
    params = source_lib.params_of(source)
    if params['k'] % 1:
      raise source.refuse(NAME, f'k is {params["k"]:g}, wanted an integer')
    k = int(params['k'])
    return 'AutoEncoderTopK', _linear(params, k), {'k': k}
  params = source_lib.as_jumprelu(source, to=NAME)
  return 'JumpReluAutoEncoder', params, {}


def _linear(params: record.Params, k: int) -> dict[str, np.ndarray]:
  """Returns the tensors of an AutoEncoderTopK."""
  shift = params['b_dec'].astype(np.float64) @ params['W_enc']
  return {
      'k': np.asarray(k, np.int32),
      # Below 0, the class selects the k largest and has no threshold.
      'threshold': np.asarray(-1, np.float32),
      'decoder.weight': np.ascontiguousarray(params['W_dec'].T),
      'encoder.weight': np.ascontiguousarray(params['W_enc'].T),
      'encoder.bias': (params['b_enc'] + shift).astype(np.float32),
      'b_dec': params['b_dec'],
  }
