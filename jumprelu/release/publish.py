"""Release of a run: its members are folded, evaluated and written.

A folded SAE reads raw activations, because the scales used in training are
multiplied into its arrays. The evaluation is stored in the run directory and
reused only for the same checkpoint and settings.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import data, evals, extras, lm, sharding
from jumprelu.data import packing
from jumprelu.evals import evaluate, stored
from jumprelu.evals import partial as partial_lib
from jumprelu.files import digests
from jumprelu.ops import products
from jumprelu.release import members as members_lib
from jumprelu.release import releasable, write
from jumprelu.saes import base
from jumprelu.training import config as config_lib
from jumprelu.training import load_run, run_digest, run_dir

with extras.imports():
  from etils import epath

_EVALUATION = 'evaluation'
# The folder of partial results, until an evaluation is complete.
_PARTIAL = 'evaluation.partial'


class Run(NamedTuple):
  """A run, opened for evaluation and release.

  Attributes:
    path: The run directory.
    config: The run's config.
    members: The trained members of the newest checkpoint.
    folded: The folded SAE of each member and its arrays.
    model: The language model.
    prepared: The tokens of the training and held-out text.
    mesh: The device mesh.
  """

  path: epath.Path
  config: config_lib.TrainConfig
  members: list[load_run.TrainedMember]
  folded: list[tuple[base.Sae, base.Params]]
  model: lm.LanguageModel
  prepared: data.Prepared
  mesh: jax.sharding.Mesh


def open_run(run: str | os.PathLike[str]) -> Run:
  """Returns a run with its newest checkpoint, its language model and its text.

  Raises:
    MissingInputError: the run, its model or its text does not exist.
    DataError: a file is damaged; the message names it.
  """
  path = run_dir.RunDir(run).path
  config = run_dir.RunDir(path).read_config()
  members = load_run.load_suite(path)
  # All present devices are used; training may have used others.
  mesh = sharding.make_mesh(sharding.Config())
  model = lm.load(
      config.model,
      dtype=config_lib.dtype_on(config.lm_dtype, jax.default_backend()),
      mesh=mesh,
  )
  tokenizer = data.Tokenizer(model.tokenizer_path, rows=model.config.vocab)
  prepared = data.prepare(config.data, tokenizer, config.corpus)
  return Run(path, config, members, fold(members), model, prepared, mesh)


def fold(
    members: Sequence[load_run.TrainedMember],
) -> list[tuple[base.Sae, base.Params]]:
  """Returns the folded SAE of each member, and its arrays."""
  return [
      m.sae.fold(
          {k: jnp.asarray(v) for k, v in m.params.items()},
          input_scale=m.input_scale,
          target_scale=m.target_scale,
      )
      for m in members
  ]


def evaluate_run(run: Run) -> evaluate.Evaluation:
  """Returns the evaluation of all members.

  It is read from the run directory if it is stored there, else computed and
  stored.
  """
  folder = run.path / _EVALUATION
  key = evaluation_key(run)
  evaluation = stored.read(folder, key)
  if evaluation is None:
    partial = partial_lib.Partial(run.path / _PARTIAL, key)
    evaluation = evaluate_members(run, partial=partial)
    stored.write(evaluation, folder, key)
    partial_lib.remove(run.path / _PARTIAL)
  return evaluation


def evaluation_key(run: Run) -> dict[str, Any]:
  """Returns everything that determines a run's evaluation, as JSON values."""
  # Digests of the folded arrays, because these also depend on the scales in the
  # checkpoint.
  members = {
      'saes': [repr(sae) for sae, _ in run.folded],
      'params': digests.tree_digest([params for _, params in run.folded]),
  }
  return {
      'evals': evals.VERSION,
      'run': identity(run),
      'step': run.members[0].meta['counts']['step'],
      'members': members,
      'eval': dataclasses.asdict(run.config.eval),
      'held_out': run.prepared.held_out.digest,
      'train': run.prepared.train.digest,
      'lm': digests.tree_digest(run.model.params),
      **arithmetic(run.config),
  }


def arithmetic(config: config_lib.TrainConfig) -> dict[str, Any]:
  """Returns the platform and precisions of an evaluation on this machine."""
  platform = jax.default_backend()
  with products.precision(config.matmul_precision):
    precision = jax.config.jax_default_matmul_precision
  return {
      'platform': platform,
      'lm_dtype': config_lib.dtype_on(config.lm_dtype, platform),
      'matmul_precision': precision or 'default',
  }


def evaluate_members(
    run: Run,
    measures: Sequence[str] = (),
    *,
    partial: partial_lib.Partial = partial_lib.NONE,
) -> evaluate.Evaluation:
  """Returns a new evaluation of all members on the run's held-out text.

  Args:
    run: The run, whose matmul precision is used.
    measures: The names of additional measures.
    partial: Partial results, from which an interrupted evaluation resumes.
  """
  with products.precision(run.config.matmul_precision):
    return evaluate.evaluate_members(
        run.model,
        eval_members(run),
        held_out=run.prepared.held_out,
        train=run.prepared.train,
        config=run.config.eval,
        mesh=run.mesh,
        measures=measures,
        partial=partial,
    )


def eval_members(run: Run) -> list[evaluate.EvalMember]:
  """Returns the run's folded SAEs as members of an evaluation."""
  return [
      evaluate.EvalMember(
          sae=sae,
          params=params,
          reads=m.reads,
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


def release_run(
    run: Run,
    evaluation: evaluate.Evaluation,
    out: str | os.PathLike[str],
    *,
    test_vectors: int = 16,
    licence: str = 'Apache-2.0',
    as_jumprelu: bool = False,
    unfinished: bool = False,
    allow_skipped: bool = False,
) -> list[dict[str, Any]]:
  """Writes the release of a run; returns its rows of results, with paths.

  Args:
    run: The run.
    evaluation: The evaluation of the run's members.
    out: The folder of the release.
    test_vectors: The number of test vectors per member.
    licence: The SPDX name of the licence of the released arrays.
    as_jumprelu: Whether to convert each SAE that equals a JumpReLU SAE.
    unfinished: Whether to release a run that is not finished.
    allow_skipped: Whether to release members that skipped more than 5 % of
      their steps.

  Raises:
    UserError: the run is not finished or a member skipped too many steps, and
      the argument that allows it is not set; or `out` may not be replaced.
    DataError: the written release does not pass verification.
  """
  releasable.check(
      run.members,
      run=run.path,
      total_steps=run.config.steps,
      unfinished=unfinished,
      allow_skipped=allow_skipped,
  )
  releasable.warn_of_skipped(run.members)
  members = _members(
      run,
      evaluation,
      inputs=held_out_inputs(run, rows=test_vectors),
      as_jumprelu=as_jumprelu,
  )
  return write.write_release(members, out, provenance=provenance(run, licence))


def _members(
    run: Run,
    evaluation: evaluate.Evaluation,
    *,
    inputs: Mapping[lm.Reads, np.ndarray],
    as_jumprelu: bool,
) -> list[members_lib.Member]:
  added = {config: _record(config) for config in _added(run)}
  return [
      members_lib.Member(
          sae=sae,
          params=params,
          reads=m.reads,
          sparsity_coefficient=m.member.sparsity_coefficient,
          target_l0=m.member.target_l0,
          seed=m.member.seed,
          learning_rate=m.member.learning_rate,
          initial_threshold=m.member.initial_threshold,
          input_scale=m.input_scale,
          target_scale=m.target_scale,
          tokens_trained=m.meta['counts']['tokens_trained'],
          steps=m.meta['counts']['step'],
          total_steps=run.config.steps,
          steps_skipped=m.steps_skipped,
          frozen=m.frozen,
          training=added.get(m.config) if m.config else None,
          results=row,
          inputs=inputs[m.reads],
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


def _as_jumprelu(
    folded: list[tuple[base.Sae, base.Params]],
) -> list[tuple[base.Sae, base.Params]]:
  return [sae.to_jumprelu(params) or (sae, params) for sae, params in folded]


def identity(run: Run) -> str:
  """Returns the digest of the fields that determine the results of a run."""
  return run_digest.suite_digest([run.config, *_added(run)])


def _added(run: Run) -> list[config_lib.TrainConfig]:
  """Returns the configs of the members that were added to a run."""
  configs = dict.fromkeys(m.config for m in run.members if m.config)
  return [config for config in configs if config != run.config]


def _record(config: config_lib.TrainConfig) -> dict[str, Any]:
  """Returns a config without local paths, as JSON values."""
  return config_lib.to_record(run_digest.portable(config))


def provenance(run: Run, licence: str = 'Apache-2.0') -> members_lib.Provenance:
  """Returns the origin of a run's members, without local paths."""
  return members_lib.Provenance(
      model=run.model.name,
      layers=tuple(dict.fromkeys(m.member.layer for m in run.members)),
      training=_record(run.config),
      corpus=run.prepared.description,
      tokenizer_sha256=data.Tokenizer(run.model.tokenizer_path).sha256,
      run=identity(run),
      command=run_digest.commands(run.config, _added(run)),
      licence=licence,
      family=run.model.config.family,
  )


def held_out_inputs(run: Run, *, rows: int) -> dict[lm.Reads, np.ndarray]:
  """Returns raw held-out inputs [rows, model] of each kind of member.

  The rows are spread over up to four sequences of the held-out text. There are
  fewer than `rows` if these sequences hold fewer kept positions.
  """
  cache = run.prepared.held_out
  count = min(4, len(cache))
  tokens = cache.tokens_at(np.linspace(0, len(cache) - 1, count, dtype=int))
  kept = np.argwhere(packing.keep_mask(tokens, cache.user_prefix))
  chosen = kept[np.linspace(0, len(kept) - 1, min(rows, len(kept)), dtype=int)]
  all_reads = {m.reads for m in run.members}
  taps = tuple(sorted({tap for reads in all_reads for tap in reads.inputs}))

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
  for reads in all_reads:
    parts = [
        np.asarray(values[tap], np.float32)[chosen[:, 0], chosen[:, 1]]
        for tap in reads.inputs
    ]
    inputs[reads] = np.concatenate(parts, axis=-1)
    if not reads.input_gain:
      inputs[reads] /= np.asarray(
          lm.input_gains(run.model.config, run.model.params, reads)
      )
  return inputs
