"""Evaluation of SAEs on held-out text, with one row of results per SAE.

An evaluation makes two passes over a fixed random sample of held-out rows. The
first pass reads only activations, for L0, FVU, gamma and firing frequencies.
The second pass runs the whole language model on some of these rows, for the
losses; its mean ablation uses the means of the first pass. In each pass, one
clean forward pass per batch serves all SAEs, which are called members. The sums
of a batch are fetched while the next batch runs.

SAEs are in their released form (activation scale folded in) and read raw
activations, so a run and its release have the same results.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import types
from typing import Any, NamedTuple

import jax
import numpy as np

from jumprelu import errors, evals, lm
from jumprelu.evals import corpus_passes, jitted, pca, results, splice
from jumprelu.evals import measures as measures_lib
from jumprelu.evals import partial as partial_lib
from jumprelu.evals import text as text_lib
from jumprelu.evals.measures import config as settings_lib
from jumprelu.evals.measures import context as context_lib
from jumprelu.saes import base

write_results = results.write


@dataclasses.dataclass(frozen=True)
class EvalMember:
  """One SAE in released form, with the fields that describe its origin."""

  sae: base.Sae
  params: Mapping[str, Any]
  reads: lm.Reads
  # Fields of the row, such as sparsity_coefficient, target_l0, seed,
  # tokens_trained and path.
  meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Evaluation(NamedTuple):
  """Results; the lists are in the order of the members."""

  rows: list[results.Row]
  firing_frequency: list[np.ndarray]  # Each [latents].
  # {name of a measure: its table}.
  tables: Mapping[str, list[results.Row]] = types.MappingProxyType({})


def evaluate_members(
    model: lm.LanguageModel,
    members: Sequence[EvalMember],
    *,
    held_out: Any,
    train: Any = None,
    config: evals.Config | None = None,
    mesh: jax.sharding.Mesh | None = None,
    measures: Sequence[str] = (),
    settings: settings_lib.Config | None = None,
    partial: partial_lib.Partial = partial_lib.NONE,
) -> Evaluation:
  """Returns the results of all members on the same held-out tokens.

  Args:
    model: The language model, with all of its layers.
    members: SAEs of any sites, layers and widths.
    held_out: Token cache of text that no member was trained on.
    train: Token cache of training text for the PCA baseline; None omits it.
    config: Numbers of tokens, and the thresholds for dead and dense latents.
    mesh: The device mesh; one device if None.
    measures: Names from `evals.measures.MEASURES` of optional measures.
    settings: Settings of the optional measures.
    partial: Partial results, from which an interrupted evaluation resumes.

  Raises:
    UserError: if text is missing, or an SAE or a measure cannot be evaluated.
    MissingInputError, DataError: if a measure's file is missing or damaged.
  """
  config = config or evals.Config()
  measures = measures_lib.check(measures)
  check_fit(model, members, held_out)
  placed = _place(model, members, mesh)
  forward = _forward(model, members, held_out.user_prefix, mesh)
  sample = functools.partial(_sample, config=config, mesh=mesh)
  text = sample(held_out, config.tokens)
  targets = sorted({member.target for member in placed})
  shift = corpus_passes.first_means(forward, targets, text=text)
  sums = corpus_passes.first(
      forward, placed, shift, text=text, config=config, partial=partial
  )
  has_baseline = train is not None and len(train) and config.pca_tokens
  fitted = sample(train, config.pca_tokens) if has_baseline else None
  curves = _pca_curves(forward, shift, sums, text=fitted, partial=partial)
  means = {target: fit.mean for target, fit in sums.moments.items()}
  loss_text = text.first(config.delta_loss_tokens)
  losses = corpus_passes.second(
      model, placed, means, forward=forward, text=loss_text, partial=partial
  )
  rows = []
  for i, member in enumerate(members):
    values = _compute(sums, i, placed[i], curves, config) | losses[i].compute()
    rows.append(results.make_row(_identity(model, member) | values))
  frequencies = [firing.firing_frequency for firing in sums.firing]
  context = context_lib.Context(
      model, placed, _names(rows), list(map(_kind, members)), frequencies,
      means, forward, loss_text, settings or settings_lib.Config(),
  )  # fmt: skip
  tables = _measure(context, measures, rows, partial)
  return Evaluation(rows, frequencies, tables)


def _sample(cache, tokens, *, config, mesh):
  """Returns a sample of a cache, in batches of the config's size."""
  return text_lib.sample(
      cache, tokens, sequences=config.lm_sequences, mesh=mesh
  )


def _forward(model, members, user_prefix, mesh):
  """Returns the clean forward pass, which records the members' taps."""
  reads = [member.reads for member in members]
  return jitted.forward(
      model, splice.taps_for(reads), limits=lm.all_limits(reads),
      user_prefix=user_prefix, mesh=mesh,
  )  # fmt: skip


def _pca_curves(forward, shift, sums, *, text, partial):
  """Returns, for each target, the FVU by rank of PCA fitted on `text`.

  The result is empty if `text` is None.
  """
  if text is None:
    return {}
  fits = corpus_passes.moments(forward, shift, text=text, partial=partial)
  return {
      target: pca.fvu(pca.fit(fit), sums.moments[target])
      for target, fit in fits.items()
  }


def _measure(context, measures, rows, partial):
  """Adds the measures' columns to the rows and returns their tables."""
  tables = {}
  for name in measures:

    def compute(measure=measures_lib.MEASURES[name]):
      measured = measure(context)
      return {
          'columns': [results.make_row(row) for row in measured.columns],
          'table': [results.make_row(row) for row in measured.table],
      }

    measured = partial.once(name, compute)
    for row, columns in zip(rows, measured['columns'], strict=True):
      row |= columns
    if measured['table']:
      tables[name] = measured['table']
  return tables


def _names(rows):
  """Returns a name for each member: its path, or else its index."""
  return [row['path'] or str(i) for i, row in enumerate(rows)]


def _kind(member):
  """Returns a key that is equal for members that differ only in their seeds.

  The key is None if the seed is unknown.
  """
  meta = member.meta
  if meta.get('seed') is None:
    return None
  shared = (meta.get('sparsity_coefficient'), meta.get('target_l0'))
  return member.sae, member.reads, *shared


def print_table(rows: Sequence[results.Row]) -> None:
  """Prints the rows as an aligned table."""
  print(results.table(rows), flush=True)


def _place(model, members, mesh):
  """Puts the members on the devices, with parameters for raw activations."""
  return [
      corpus_passes.place(m.sae, params_with_gain(model, m), m.reads, mesh=mesh)
      for m in members
  ]


def params_with_gain(
    model: lm.LanguageModel, member: EvalMember
) -> Mapping[str, Any]:
  """Returns parameters for inputs that include the norm's gain.

  The recorded activations include it, but some SAEs (`Reads.input_gain`) read
  inputs without it.
  """
  if member.reads.input_gain:
    return member.params
  gains = lm.input_gains(model.config, model.params, member.reads)
  return member.sae.read_times(member.params, gains)


def check_fit(model, members, held_out):
  """Raises a UserError if an SAE does not fit or there is no data."""
  if not members or not len(held_out):
    raise errors.UserError('nothing to evaluate: no SAE or no held-out text')
  check_shapes(model.config, members)


def check_shapes(config: lm.LmConfig, members: Sequence[EvalMember]) -> None:
  """Raises a UserError if the model lacks the layer or the size of an SAE."""
  for member in members:
    reads = member.reads
    where = f'{member.meta.get("path") or reads.name}: '
    for layer in reads.layers:
      if not 0 <= layer < config.layers:
        raise errors.UserError(
            f'{where}layer {layer}, but {config.name} has layers 0 to'
            f' {config.layers - 1}'
        )
    sizes = tuple(
        sum(config.d_site(tap.site) for tap in taps)
        for taps in (reads.inputs, reads.targets)
    )
    if (member.sae.d_in, member.sae.d_out) != sizes:
      raise errors.UserError(
          f'{where}the SAE maps {member.sae.d_in} to {member.sae.d_out}'
          f' dimensions, but at this site {config.name} has'
          f' {" to ".join(map(str, sizes))}'
      )


def _identity(model, member):
  """Returns the fields that identify a row's member."""
  return {
      'model': model.name,
      'layer': member.reads.layer,
      'site': member.reads.name,
      'width': member.sae.width,
      'variant': member.sae.variant,
      'sparsity_coefficient': None,
      'target_l0': None,
      'seed': None,
      'tokens_trained': None,
      'path': '',
      'lm_dtype': str(jax.tree.leaves(model.params)[0].dtype),
      'matmul_precision': jax.config.jax_default_matmul_precision or 'default',
  } | dict(member.meta)


def _compute(sums, i, member, curves, config):
  """Returns the metrics of member `i` from the first pass."""
  firing = sums.firing[i].compute(config.dense_share)
  window = sums.window[i].compute(config.dense_share)
  long_enough = sums.window[i].tokens >= config.dead_window_tokens
  values = {
      'tokens_evaluated': sums.reconstruction[i].tokens,
      'l0': firing['l0'],
      **sums.reconstruction[i].compute(sums.moments[member.target]),
      # Undefined on fewer tokens, because rare latents would count as dead.
      'dead_share': window['dead_share'] if long_enough else np.nan,
      'dead_window_tokens': sums.window[i].tokens,
      'dense_share': firing['dense_share'],
      'pca_fvu': np.nan,
  }
  # No baseline for transcoders, because PCA reads the target and they do not.
  if not member.reads.is_transcoder and member.target in curves:
    values['pca_fvu'] = pca.fvu_at(curves[member.target], firing['l0'])
  return values
