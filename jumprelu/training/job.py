"""What a run needs besides its directory: the suite and its activations."""

from collections.abc import Sequence
import dataclasses
import json
from typing import Any, NamedTuple

from jumprelu import data, errors, lm, sharding
from jumprelu.activations import blocks, store
from jumprelu.activations import stream as stream_lib
from jumprelu.data import loader
from jumprelu.files import digests
from jumprelu.training import config as config_lib
from jumprelu.training import load_run, run_dir, suite


class Job(NamedTuple):
  """All that a run needs besides its directory."""

  config: config_lib.TrainConfig
  groups: Sequence[suite.Group]
  stream: blocks.Source
  data_digest: str
  mesh: Any = None
  # Of the language model's layers that are read, as they were loaded.
  lm_digest: str = ''
  lm_dtype: str = ''


def make_job(config: config_lib.TrainConfig) -> Job:
  """Lays out the suite; loads the model and the text, or opens the store."""
  # A config that no command has resolved may name any folder.
  if problems := list(config_lib.model_problems(config.model, config.layer)):
    raise errors.UserError('; '.join(problems))

  # Mesh and the shapes that it must divide: before anything is read.
  mesh = sharding.make_mesh(config.mesh)
  config.stream.check_data_axis(mesh.shape['data'])
  groups = load_run.make_suite(config)
  for group in groups:
    suite.layout_of(group, mesh)
  dtype = config_lib.dtype_on(config, sharding.platform(mesh))

  # Neither model nor text, where their activations are stored.
  if config.store:
    stored = store.Stored(config, suite.taps(groups), dtype=dtype, mesh=mesh)
    digest = stored.manifest['lm_digest']
    return Job(config, groups, stored, stored.data_digest, mesh, digest, dtype)

  # Text first: what is wrong with it is told before the model is loaded.
  files = lm.find(config.model)
  tokenizer = data.Tokenizer(files.tokenizer_path, rows=files.config.vocab)
  prepared = data.prepare(config.data, tokenizer, config.corpus)

  # Language model: the layers up to the highest that is read.
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
  stream = stream_lib.Stream(
      config.stream,
      forward,
      params=model.params,
      loader=loader.Loader(prepared.train, config.corpus.seed),
      sequence_length=config.corpus.sequence_length,
      seed=config.corpus.seed,
      user_prefix=prepared.train.user_prefix,
      mesh=mesh,
  )
  digest = digests.tree_digest(model.params)
  return Job(config, groups, stream, prepared.train.digest, mesh, digest, dtype)


def facts(job: Job) -> dict[str, str]:
  """What all processes of a run must have in common."""
  return {
      'config': config_lib.to_json(job.config),
      'data': job.data_digest,
      'the language model (--model)': job.lm_digest,
      'environment': json.dumps(run_dir.environment(), sort_keys=True),
  }


def describe(job: Job, scales: dict[lm.Tap, float]) -> dict[str, Any]:
  """What suite.json says."""
  model = lm.get_config(job.config.model)
  return {
      'model': model.name,
      'd_site': {str(site): model.d_site(site) for site in lm.Site},
      'layer': job.config.layer,
      'scales': lm.to_json_keys(scales),
      'data_digest': job.data_digest,
      'lm_digest': job.lm_digest,
      'members': [
          {'group': group.name, 'index': index, **dataclasses.asdict(member)}
          for group in job.groups
          for index, member in enumerate(group.members)
      ],
  }
