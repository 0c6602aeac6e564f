"""Readers of SAEs: our releases and the formats of other libraries."""

import io
import json
import pathlib
from typing import Any
import zipfile

import jax.numpy as jnp
import numpy as np

from experiments.reliability import archives, mutations
from experiments.reliability.readers import base
from jumprelu import lm, saes
from jumprelu.release import compare, formats, layout, verify, write
from jumprelu.release import members as members_lib
from jumprelu.release.exports import (
    dictionary_learning,
    gemma_scope_2,
    saelens,
    source,
)

_D, _WIDTH = 4, 8
_JSON = (mutations.of_json,)
_BYTES = (mutations.of_bytes,)


def readers() -> list[base.Reader]:
  """Returns the readers of this file."""
  values = base.Protection.VALUES
  npz = {'**/params.npz': _BYTES}
  whole = {'**/params.npz': (archives.of_zip,)}
  tensors = {'**/*.safetensors': (mutations.of_bytes, archives.of_safetensors)}
  return [
      base.Reader(
          'gemma_scope', _gemma_scope, _find, npz, whole, protection=values
      ),
      base.Reader(
          'gemma_scope_deflated', _deflated, _find, npz, whole,
          protection=values,
      ),
      base.Reader(
          'release', make_release, _find,
          npz | {'**/config.json': _JSON, 'suite.json': _JSON}, whole,
          protection=values, unprotected=('**/*.json',),
      ),
      base.Reader(
          'release_verified', make_release, verify.verify_release,
          {
              'suite.json': _JSON,
              '**/*.json': (*_JSON, *_BYTES),
              '**/*.npz': (*_BYTES, archives.of_zip),
              '**/*.npy': (*_BYTES, archives.of_npy),
              'results.*': _BYTES,
          },
          protection=base.Protection.BYTES, unprotected=('suite.json',),
      ),
      base.Reader(
          'gemma_scope_2', _exported(gemma_scope_2), _find,
          tensors | {'**/config.json': _JSON},
      ),
      base.Reader(
          'saelens', _exported(saelens), _find, tensors | {'**/cfg.json': _JSON}
      ),
      base.Reader(
          'dictionary_learning', _exported(dictionary_learning), _find,
          {'**/ae.pt': (mutations.of_bytes, archives.of_zip),
           '**/config.json': _JSON},
      ),
      base.Reader(
          'circuit_tracer', _circuit_tracer, _find,
          tensors | {'config.yaml': (mutations.of_text,)},
      ),
      base.Reader(
          'results', _results, _compare,
          {'*.jsonl': (mutations.of_lines, mutations.of_lines, *_BYTES)},
      ),
  ]  # fmt: skip


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
  """Returns the arrays of a JumpReLU SAE."""
  rng = np.random.default_rng(seed)
  W_dec = rng.normal(size=(_WIDTH, _D)).astype(np.float32)
  W_dec /= np.linalg.norm(W_dec, axis=1, keepdims=True)
  return {
      'W_enc': rng.normal(size=(_D, _WIDTH)).astype(np.float32),
      'b_enc': rng.normal(size=_WIDTH).astype(np.float32),
      'W_dec': W_dec,
      'b_dec': rng.normal(size=_D).astype(np.float32),
      'threshold': rng.uniform(0.1, 0.5, _WIDTH).astype(np.float32),
  }


def make_release(folder: pathlib.Path) -> None:
  """Writes a release with one member into the folder."""
  rng = np.random.default_rng(1)
  sae = saes.make_sae(
      'jumprelu',
      saes.jumprelu.Config(
          pre_encoder_bias=False, threshold_parameter='linear'
      ),
      d_in=_D,
      d_out=_D,
      width=_WIDTH,
  )
  member = members_lib.Member(
      sae=sae,
      params={name: jnp.asarray(x) for name, x in arrays().items()},
      reads=lm.make_reads('resid_post', 1),
      sparsity_coefficient=1e-3,
      target_l0=0.0,
      seed=0,
      learning_rate=1e-3,
      initial_threshold=0.1,
      input_scale=2.0,
      target_scale=2.0,
      tokens_trained=2048,
      steps=4,
      results={
          'model': 'gemma2_nano', 'layer': 1, 'site': 'resid_post',
          'width': _WIDTH, 'variant': 'jumprelu', 'target_l0': 0.0, 'l0': 3.5,
          'fvu': 0.25, 'delta_loss': 0.1, 'tokens_evaluated': 1024,
          'loss_clean': 2.5,
      },  # fmt: skip
      inputs=rng.normal(size=(3, _D)).astype(np.float32),
      firing_frequency=np.linspace(0, 1, _WIDTH, dtype=np.float32),
  )
  provenance = members_lib.Provenance(
      model='gemma2_nano',
      layers=(1,),
      training={},
      corpus={'name': 'text', 'digest': '0' * 64},
      tokenizer_sha256='0' * 64,
      run='0' * 64,
  )
  write.write_release([member], folder, provenance=provenance)


def _gemma_scope(folder: pathlib.Path) -> None:
  path = folder / 'gemma-scope-2b-pt-res/layer_1/width_8/average_l0_3'
  path.mkdir(parents=True)
  named: Any = arrays()
  np.savez(path / layout.PARAMS, **named)


def _deflated(folder: pathlib.Path) -> None:
  _gemma_scope(folder)
  (path,) = folder.glob('**/params.npz')
  file = io.BytesIO()
  with zipfile.ZipFile(path) as old, zipfile.ZipFile(file, 'w') as new:
    for info in old.infolist():
      new.writestr(info.filename, old.read(info), zipfile.ZIP_DEFLATED)
  path.write_bytes(file.getvalue())


def _exported(export: Any):
  """Returns the maker of the SAE of a release in another format."""

  def make(folder: pathlib.Path) -> None:
    scratch = folder / 'scratch'
    make_release(scratch)
    export.write(source.read(scratch), folder)
    base.remove(scratch)

  return make


def _circuit_tracer(folder: pathlib.Path) -> None:
  from safetensors import numpy as safetensors

  values = arrays()
  tensors = values | {
      'W_enc': np.ascontiguousarray(values['W_enc'].T),
      'activation_function.threshold': values['threshold'],
      'W_skip': np.zeros((_D, _D), np.float32),
  }
  del tensors['threshold']
  safetensors.save_file(tensors, folder / 'layer_0.safetensors')
  (folder / 'config.yaml').write_text(
      'model_name: "google/gemma-2-2b"\nmodel_kind: "transcoder_set"\n'
      'feature_input_hook: "mlp.hook_in"\n'
      'feature_output_hook: "hook_mlp_out"\n'
  )


def _find(folder: pathlib.Path) -> Any:
  """Returns the parameters and origins of all SAEs of a folder."""
  result = {}
  for path, sae in formats.find(folder).items():
    base.check_finite(sae.params, path)
    result[path] = sae.params, sae.origin, dict(sae.meta), sae.sae
  return result


def _results(folder: pathlib.Path) -> None:
  make_release(folder / 'scratch')
  text = (folder / 'scratch' / layout.ALL_RESULTS).read_text()
  row = json.loads(text.splitlines()[0])
  lines = [json.dumps(row | {'l0': l0}) + '\n' for l0 in (3.5, 7.0, 14.0)]
  (folder / layout.ALL_RESULTS).write_text(''.join(lines))
  base.remove(folder / 'scratch')


def _compare(folder: pathlib.Path) -> Any:
  from jumprelu.evals import results

  rows = compare.read(folder / layout.ALL_RESULTS)
  compare.has_one_text(rows)
  return results.table(rows)
