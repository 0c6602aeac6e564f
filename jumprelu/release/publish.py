"""From a run directory to a release: fold, evaluate, write.

The evaluation is kept in the run directory, so that releasing again costs
nothing, and is used again only for the very same checkpoint and settings.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import data, lm, sharding
from jumprelu.array_typing import Array, Float
from jumprelu.data import packing
from jumprelu.evals import evaluate, stored
from jumprelu.release import records, write
from jumprelu.saes import base
from jumprelu.training import config as config_lib
from jumprelu.training import identity, load_run, run_dir

_EVALUATION = 'evaluation'


class Run(NamedTuple):
  """What a release is made of."""

  path: pathlib.Path
  config: config_lib.TrainConfig
  members: list[load_run.TrainedMember]
  folded: list[tuple[base.Sae, base.Params]]
  model: lm.LanguageModel
  prepared: data.Prepared
  mesh: Any


def open_run(run: str | os.PathLike[str]) -> Run:
  """Load a run's newest checkpoint, its language model and its text."""
  path = pathlib.Path(run)
  config = run_dir.RunDir(path).read_config()
  members = load_run.load_suite(path)
  # Whatever devices it was trained on: all that are here now.
  mesh = sharding.make_mesh(sharding.Config())
  model = lm.load(
      config.model,
      dtype=config_lib.dtype_on(config, jax.default_backend()),
      mesh=mesh,
  )
  tokenizer = data.Tokenizer(model.tokenizer_path, rows=model.config.vocab)
  prepared = data.prepare(config.data, tokenizer, config.corpus)
  return Run(path, config, members, fold(members), model, prepared, mesh)


def fold(
    members: Sequence[load_run.TrainedMember],
) -> list[tuple[base.Sae, base.Params]]:
  """Make SAEs that read raw activations of those that read scaled ones."""
  return [
      m.sae.fold(
          {k: jnp.asarray(v) for k, v in m.params.items()},
          input_scale=m.input_scale,
          target_scale=m.target_scale,
      )
      for m in members
  ]


def evaluate_run(run: Run) -> evaluate.Evaluation:
  """Evaluate every member on held-out text, or read what is stored."""
  folder = run.path / _EVALUATION
  key = {
      'step': run.members[0].meta['counts']['step'],
      'eval': dataclasses.asdict(run.config.eval),
      'held_out': run.prepared.held_out.digest,
  }
  found = stored.read(folder, key)
  if found is None:
    found = evaluate_members(run)
    stored.write(found, folder, key)
  return found


def evaluate_members(
    run: Run, measures: Sequence[str] = ()
) -> evaluate.Evaluation:
  """Evaluate every member on held-out text, computing as the run did."""
  with _matmul_precision(run.config):
    return evaluate.evaluate_members(
        run.model,
        eval_members(run),
        held_out=run.prepared.held_out,
        train=run.prepared.train,
        config=run.config.eval,
        mesh=run.mesh,
        measures=measures,
    )


def eval_members(run: Run) -> list[evaluate.EvalMember]:
  """Make of a run's members what an evaluation takes."""
  return [
      evaluate.EvalMember(
          sae=sae,
          params=read_with_gain(sae, params, run=run, site=m.member.site),
          layer=run.config.layer,
          site=m.member.site,
          meta={
              'variant': m.member.variant,
              'sparsity_coefficient': m.member.sparsity_coefficient,
              'target_l0': m.member.target_l0,
              'seed': m.member.seed,
              'tokens_trained': m.meta['counts']['tokens_trained'],
          },
      )
      for m, (sae, params) in zip(run.members, run.folded, strict=True)
  ]


def _matmul_precision(config: config_lib.TrainConfig):
  """Compute as the run did."""
  if config.matmul_precision == 'default':
    return contextlib.nullcontext()
  return jax.default_matmul_precision(config.matmul_precision)


def release_run(
    run: Run,
    evaluation: evaluate.Evaluation,
    out: str | os.PathLike[str],
    *,
    test_vectors: int = 16,
    licence: str = 'Apache-2.0',
    as_jumprelu: bool = False,
) -> list[dict[str, Any]]:
  """Write the release of a run and return its rows, with their paths.

  With `as_jumprelu` they are the JumpReLU SAEs that they equal, where they do.
  """
  inputs = held_out_inputs(run, rows=test_vectors)
  members = [
      records.Member(
          sae=sae,
          params=params,
          site=m.member.site,
          sparsity_coefficient=m.member.sparsity_coefficient,
          target_l0=m.member.target_l0,
          seed=m.member.seed,
          learning_rate=m.member.learning_rate,
          initial_threshold=m.member.initial_threshold,
          input_scale=m.input_scale,
          target_scale=m.target_scale,
          input_gain=_input_gain(run, m.member.site),
          tokens_trained=m.meta['counts']['tokens_trained'],
          steps=m.meta['counts']['step'],
          results=row,
          inputs=inputs[m.member.site],
          firing_frequency=frequency,
          converted_from='' if sae.variant == m.sae.variant else m.sae.variant,
      )
      for m, (sae, params), row, frequency in zip(
          run.members,
          _as_jumprelu(run.folded) if as_jumprelu else run.folded,
          evaluation.rows,
          evaluation.firing_frequency,
          strict=True,
      )
  ]
  return write.write_release(members, out, provenance=provenance(run, licence))


def _as_jumprelu(
    folded: list[tuple[base.Sae, base.Params]],
) -> list[tuple[base.Sae, base.Params]]:
  return [sae.to_jumprelu(params) or (sae, params) for sae, params in folded]


def provenance(run: Run, licence: str = 'Apache-2.0') -> records.Provenance:
  """Say where a run's members come from."""
  return records.Provenance(
      model=run.model.name,
      layer=run.config.layer,
      training=config_lib.to_record(run.config),
      corpus=run.prepared.description,
      tokenizer_sha256=data.Tokenizer(run.model.tokenizer_path).sha256,
      run=identity.run_digest(run.config),
      command=identity.commands(run.config),
      licence=licence,
  )


def held_out_inputs(run: Run, *, rows: int) -> dict[str, np.ndarray]:
  """Take raw held-out inputs of each site, [rows, model], all over the text."""
  cache = run.prepared.held_out
  count = min(4, len(cache))
  tokens = cache.tokens_at(np.linspace(0, len(cache) - 1, count, dtype=int))
  kept = np.argwhere(packing.keep_mask(tokens, cache.user_prefix))
  chosen = kept[np.linspace(0, len(kept) - 1, min(rows, len(kept)), dtype=int)]
  sources = {m.member.site: lm.SITES[m.member.site][0] for m in run.members}
  taps = tuple({lm.Tap(run.config.layer, s) for s in sources.values()})

  @jax.jit
  def forward(params, tokens):
    return lm.activations(
        run.model,
        params,
        tokens,
        positions=jnp.asarray(packing.positions(tokens)),
        segments=jnp.asarray(packing.segments(tokens)),
        taps=taps,
    )

  values = jax.device_get(forward(run.model.params, jnp.asarray(tokens)))
  inputs = {}
  for site, source in sources.items():
    value = np.asarray(values[lm.Tap(run.config.layer, source)], np.float32)
    inputs[site] = value[chosen[:, 0], chosen[:, 1]]
    if _input_gain(run, site) is False:
      inputs[site] /= np.asarray(_gain(run))
  return inputs


def read_with_gain(
    sae: base.Sae, params: base.Params, *, run: Run, site: str
) -> base.Params:
  """Make parameters for an input with the norm's gain, as the tap gives it."""
  if _input_gain(run, site) is not False:
    return params
  return sae.read_times(params, _gain(run))


def _input_gain(run: Run, site: str) -> bool | None:
  return run.config.input_gain if site == 'transcoder' else None


def _gain(run: Run) -> Float[Array, ' model']:
  gain = lm.input_gain(run.model.params, run.config.layer)
  return jnp.asarray(gain, jnp.float32)
