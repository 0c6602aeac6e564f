"""The inputs of a run: its config, its groups and its source of activations."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import json
import types
from typing import Any, NamedTuple

import jax

from jumprelu import data, errors, lm, sharding
from jumprelu.activations import blocks, store
from jumprelu.activations import scales as scales_lib
from jumprelu.activations import stream as stream_lib
from jumprelu.data import loader
from jumprelu.files import digests, formats
from jumprelu.training import config as config_lib
from jumprelu.training import (
    config_checks,
    initial,
    load_run,
    progress_lines,
    run_dir,
    suite,
)


class Job(NamedTuple):
  """The inputs of a run, apart from its directory."""

  config: config_lib.TrainConfig
  groups: Sequence[suite.Group]
  # The source of blocks of activations.
  stream: blocks.Source
  # The digest of the text.
  data_digest: str
  mesh: jax.sharding.Mesh | None = None
  # The digest and dtype of the loaded layers of the language model.
  lm_digest: str = ''
  lm_dtype: str = ''
  # The SAEs from which members start, by group; empty for the usual start.
  sources: initial.Sources = types.MappingProxyType({})
  # The suite.json of the run to which the members are added; else empty.
  added_to: Mapping[str, Any] = types.MappingProxyType({})


def make_job(
    config: config_lib.TrainConfig,
    *,
    on_phase: Callable[[str], None] = progress_lines.silent,
    sources: initial.Sources = types.MappingProxyType({}),
) -> Job:
  """Returns the job of a config.

  The language model and the text are loaded, unless the config names a store of
  activations.

  Args:
    config: The config of the run.
    on_phase: Called with a line of text at the start of each slow phase.
    sources: The SAEs of the config's `init_from` (`release.starts.find`); not
      needed to resume.

  Raises:
    UserError: the config does not fit the model, the mesh or the store.
    MissingInputError, DataError: an input is missing or damaged.
    NumericalError: the language model computes wrong logits on this machine.
  """
  # Checked again, because not every config comes from `config.resolve`.
  if problems := list(
      config_checks.model_problems(config.model, config.read_layers)
  ):
    raise errors.UserError('; '.join(problems))

  # Sizes that the mesh must divide are checked before any input is loaded.
  mesh = sharding.make_mesh(config.mesh)
  config.stream.check_data_axis(mesh.shape['data'])
  groups = load_run.make_suite(config)
  for group in groups:
    suite.layout_of(group, mesh)
  dtype = config_lib.dtype_on(config.lm_dtype, sharding.platform(mesh))
  job = functools.partial(
      Job, config, groups, mesh=mesh, lm_dtype=dtype, sources=sources
  )

  # A store replaces both the language model and the text.
  if config.store:
    on_phase(f'opening the store of activations {config.store}')
    stored = store.Stored(config, suite.taps(groups), dtype=dtype, mesh=mesh)
    digest = stored.manifest['lm_digest']
    return job(stored, stored.data_digest, lm_digest=digest)

  # The text comes first, so that its errors are raised before the slow loading
  # of the model.
  files = lm.find(config.model)
  tokenizer = data.Tokenizer(files.tokenizer_path, rows=files.config.vocab)
  prepared = data.prepare(
      config.data, tokenizer, config.corpus, on_phase=on_phase
  )
  on_phase(
      f'loading and checking the language model {config.model} of'
      f' {files.config.layers} layers, {dtype}'
  )
  stream = _make_stream(config, groups, prepared, dtype=dtype, mesh=mesh)
  digest = digests.tree_digest(stream.params)
  return job(stream, prepared.train.digest, lm_digest=digest)


def _make_stream(
    config: config_lib.TrainConfig,
    groups: Sequence[suite.Group],
    prepared: data.Prepared,
    *,
    dtype: str,
    mesh: jax.sharding.Mesh,
) -> stream_lib.Stream:
  """Returns the stream of activations, with the language model loaded."""
  # Only the layers up to the highest tap are loaded.
  taps = suite.taps(groups)
  model = lm.load(
      config.model,
      num_layers=max(tap.layer for tap in taps) + 1,
      dtype=dtype,
      mesh=mesh,
  )
  lm.self_check(model)
  forward = stream_lib.lm_forward(
      model, taps, input_gain=config.input_gain, mesh=mesh
  )
  return stream_lib.Stream(
      config.stream,
      forward,
      params=model.params,
      loader=loader.Loader(prepared.train, config.corpus.seed),
      sequence_length=config.corpus.sequence_length,
      seed=config.corpus.seed,
      user_prefix=prepared.train.user_prefix,
      mesh=mesh,
  )


def facts(job: Job) -> dict[str, str]:
  """Returns the facts that must be the same in all processes, by name."""
  return {
      'config': config_lib.to_json(job.config),
      'data': job.data_digest,
      'the language model (--model)': job.lm_digest,
      'environment': json.dumps(run_dir.environment(), sort_keys=True),
  }


def describe(job: Job, scales: scales_lib.Scales) -> dict[str, Any]:
  """Returns the content of suite.json, without the stamp of its format."""
  model = lm.get_config(job.config.model)
  return {
      'model': model.name,
      'd_site': {str(site): model.d_site(site) for site in lm.Site},
      **formats.layer_fields(job.config.read_layers),
      **scales.to_json(),
      'data_digest': job.data_digest,
      'lm_digest': job.lm_digest,
      **_started(job),
      'members': [
          {
              'group': group.name,
              'index': index,
              # The name in metrics.jsonl.
              'name': name,
              **dataclasses.asdict(member),
          }
          for group in job.groups
          for index, (name, member) in enumerate(
              zip(suite.names(group), group.members, strict=True)
          )
      ],
  }


def _started(job: Job) -> dict[str, Any]:
  if not job.sources:
    return {}
  return {'init_from': initial.describe(job.groups, job.sources)}
