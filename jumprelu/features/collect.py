"""Collections of features: the two phases, the vocabulary and the manifest.

A collection is written below OUT.partial, and moved to OUT when it is complete.
If it was stopped, another call with the same members, text and settings resumes
it: segments of text and members that are complete are kept. OUT.partial has a
lock, so that two processes do not write to it.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import pathlib
import shutil
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from jumprelu import data, errors, features, lm, processes, sharding
from jumprelu.evals import corpus_passes, evaluate, jitted
from jumprelu.evals import text as text_lib
from jumprelu.features import manifest as manifest_lib
from jumprelu.features import member_table, segments, tables, text_pass
from jumprelu.files import digests, disk, dotted, json_files, locks
from jumprelu.ops import products
from jumprelu.release import evaluation, formats
from jumprelu.release.formats import record
from jumprelu.training import config as config_lib

_SEGMENTS = 'segments'
_IDENTITY = 'identity.json'
_LOCK = 'features.lock'
# The folder that becomes OUT.
_RESULT = 'result'


class Source(NamedTuple):
  """The language model and the text of a collection.

  Attributes:
    model: The name or folder of the language model.
    text: The text, as in the field `data` of a training config.
    corpus: The config with which it is read and its held-out part chosen.
    lm_dtype: The precision of the model: float32, bfloat16 or auto.
    precision: The precision of matrix products; None for the platform's.
  """

  model: str
  text: str
  corpus: data.Config
  lm_dtype: str = 'auto'
  precision: str | None = None


def source_of(
    released: Mapping[str, record.Released],
    *,
    model: str | None = None,
    text: str | None = None,
    corpus: data.Config | None = None,
    lm_dtype: str = 'auto',
) -> Source:
  """Returns a source; arguments that are None are those of the training.

  Raises:
    UserError: The SAEs are of several language models, or of an unknown one.
  """
  training = next(iter(released.values())).training
  return Source(
      model or formats.model_of(released),
      text or training.get('data', 'stdlib'),
      corpus or evaluation.corpus_config(training),
      lm_dtype,
      training.get('matmul_precision'),
  )


def collect(
    released: Mapping[str, record.Released],
    out: pathlib.Path,
    *,
    source: Source,
    config: features.Config | None = None,
    mesh: sharding.Config | None = None,
) -> dict[str, Any]:
  """Writes the features of SAEs to a folder and returns its manifest.

  Args:
    released: The SAEs by path; their origins are complete.
    out: The folder, which must not exist.
    source: The language model and the text.
    config: The amount of text, and the numbers of examples and neighbours.
    mesh: The device mesh; the default config's if None.

  Raises:
    UserError: The folder exists, or an SAE does not fit the language model.
  """
  config = config or features.Config()
  draft = out.with_name(out.name + '.partial')
  with _locked(draft, out):
    return _collect(
        released, out, draft, source=source, config=config, mesh=mesh
    )


def _collect(
    released: Mapping[str, record.Released],
    out: pathlib.Path,
    draft: pathlib.Path,
    *,
    source: Source,
    config: features.Config,
    mesh: sharding.Config | None,
) -> dict[str, Any]:
  """Collects features in a working folder that is locked."""
  members = [evaluation.make_member(*item) for item in released.items()]
  # Precedes the load of the model and the text, which take long.
  evaluate.check_shapes(lm.find(source.model).config, members)
  devices = sharding.make_mesh(mesh or sharding.Config())
  model = _load_model(source, released, devices)
  tokenizer = data.Tokenizer(model.tokenizer_path, rows=model.config.vocab)
  cache = data.prepare(source.text, tokenizer, source.corpus).held_out
  evaluate.check_fit(model, members, cache)
  text = text_lib.sample(
      cache, config.tokens, sequences=config.lm_sequences, mesh=devices
  )
  tokens = min(config.tokens, len(cache) * cache.sequence_length)
  disk.require(
      draft,
      16 * tokens,  # The text alone.
      what='a collection of features',
      cure='or choose fewer --tokens',
  )
  identity = _identity(model, released, cache, source=source, config=config)
  _open(draft, identity)
  with products.precision(source.precision):
    _read_text(model, members, text=text, folder=draft / _SEGMENTS)
    to_logits = unembedding(
        model, members, vocab=tokenizer.vocab_size, mesh=devices
    )
    manifest = {}
    if processes.is_main():
      parts = segments.read_all(draft / _SEGMENTS)
      names = tables.write(
          described(members),
          draft / _RESULT,
          parts=parts,
          unembedding=to_logits,
          config=config,
      )
      manifest = manifest_lib.write(
          draft / _RESULT,
          parts,
          identity=identity,
          tokenizer=tokenizer,
          members=names,
      )
      (draft / _RESULT).rename(out)
      shutil.rmtree(draft)
  processes.barrier('features')
  return manifest


@contextlib.contextmanager
def _locked(draft: pathlib.Path, out: pathlib.Path) -> Iterator[None]:
  """Holds the working folder while the context is open.

  Raises:
    UserError: OUT exists, or another process writes to the working folder.
  """
  if not processes.is_main():
    yield
    return

  def refuse() -> NoReturn:
    raise errors.UserError(
        f'--out={out}: another process is collecting features there; wait for'
        ' it, or choose another folder'
    )

  _check_new(out)
  with locks.hold(draft / _LOCK, where=f'--out={out}', on_busy=refuse):
    try:
      # The other process may have completed it in the meantime.
      _check_new(out)
      yield
    finally:
      if draft.exists() and [p.name for p in draft.iterdir()] == [_LOCK]:
        shutil.rmtree(draft)


def _check_new(out: pathlib.Path) -> None:
  if out.exists():
    raise errors.UserError(
        f'--out={out}: exists; choose another folder or remove it'
    )


def _load_model(source, released, devices) -> lm.LanguageModel:
  """Returns the language model up to the last layer that an SAE reads."""
  dtype = config_lib.dtype_on(source.lm_dtype, jax.default_backend())
  layers = [max(sae.reads().layers) + 1 for sae in released.values()]
  total = lm.get_config(source.model).layers
  return lm.load(
      source.model,
      num_layers=min(max(layers), total),
      dtype=dtype,
      mesh=devices,
  )


def _identity(
    model: lm.LanguageModel,
    released: Mapping[str, record.Released],
    cache: data.TokenCache,
    *,
    source: Source,
    config: features.Config,
) -> dict[str, Any]:
  """Returns the fields that two equal collections share."""
  members = [
      {
          'path': path,
          'site': sae.origin.site,
          'layer': sae.origin.layer,
          'width': sae.sae.width,
          'variant': sae.sae.variant,
          'sha256': sae.digest(),
      }
      for path, sae in released.items()
  ]
  return json_files.to_plain(
      {
          'version': features.VERSION,
          'model': {
              'name': model.name,
              'dtype': str(jax.tree.leaves(model.params)[0].dtype),
              'matmul_precision': source.precision or 'default',
              'digest': digests.tree_digest(model.params),
          },
          'text': {
              'source': source.text,
              'split': 'held_out',
              'digest': cache.digest,
              'tokenizer_sha256': cache.manifest['tokenizer_sha256'],
              'sequence_length': cache.sequence_length,
          },
          'settings': dotted.to_dict(config),
          'members': members,
      }
  )


def _open(draft: pathlib.Path, identity: Mapping[str, Any]) -> None:
  """Creates the working folder, or keeps that of the same collection."""
  if processes.is_main():
    path = draft / _IDENTITY
    if json_files.read_json(path, missing_ok=True) != identity:
      path.unlink(missing_ok=True)
      for name in (_SEGMENTS, _RESULT):
        shutil.rmtree(draft / name, ignore_errors=True)
      json_files.write_json(path, identity)
  processes.barrier('features: folder')


def _read_text(
    model: lm.LanguageModel,
    members: Sequence[evaluate.EvalMember],
    *,
    text: text_lib.Text,
    folder: pathlib.Path,
) -> None:
  """Writes the firings of all members on the text (`text_pass.run`)."""
  placed = [
      corpus_passes.place(
          member.sae,
          evaluate.params_with_gain(model, member),
          member.reads,
          mesh=text.mesh,
      )
      for member in members
  ]
  forward = jitted.forward(
      model,
      lm.all_taps(member.reads for member in members),
      limits=lm.all_limits(member.reads for member in members),
      user_prefix=text.cache.user_prefix,
      mesh=text.mesh,
  )
  text_pass.run(forward, placed, text=text, folder=folder)


def unembedding(
    model: lm.LanguageModel,
    members: Sequence[evaluate.EvalMember],
    *,
    vocab: int,
    mesh: Any,
) -> member_table.Unembedding:
  """Returns the map to logits; all processes must call this function."""
  needed = {'embedder': ('input_embedding',), 'final_norm': None}
  for member in members:
    if member.reads.target.site is lm.Site.ATTN_HEADS:
      layer = f'layer_{member.reads.target.layer}'
      needed[layer] = ('attn', 'post_attention_norm')
  params = {}
  for name, parts in needed.items():
    part = model.params[name]
    params[name] = (
        part
        if parts is None
        else {key: value for key, value in part.items() if key in parts}
    )
  params = jax.device_get(text_pass.replicated(params, mesh=mesh))
  rows = params['embedder']['input_embedding'][:vocab]
  gain = 1 + np.asarray(params['final_norm']['scale'], np.float32)
  return member_table.Unembedding(
      dataclasses.replace(model, params=params), rows, gain
  )


def described(
    members: Sequence[evaluate.EvalMember],
) -> list[member_table.Member]:
  """Returns the members for the second phase."""
  return [
      member_table.Member(
          i,
          member.meta['path'],
          member.sae,
          {name: np.asarray(x) for name, x in member.params.items()},
          member.reads,
      )
      for i, member in enumerate(members)
  ]
