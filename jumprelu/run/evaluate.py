"""Evaluates the SAEs of a release on held-out text and prints a table.

Reads every member of a release, splices it into the language model and writes
one JSON line a member to --out, and the same as Parquet beside it: L0, FVU,
delta loss with its standard error, loss recovered by zero and mean ablation,
gamma, dead and dense shares, and PCA of rank L0 fitted on training text. Model
and text are those that the suite was trained with, unless flags say otherwise;
only documents that training on that text holds out are evaluated.

  jumprelu evaluate --release=releases/layer2 --out=results.jsonl
  jumprelu evaluate --release=releases/layer2 --data=notes/ --out=notes.jsonl
"""

import contextlib
import dataclasses
import pathlib
import signal
import sys
from typing import Any

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.run import main

POSITIONAL = 'release'


def define_flags(fv: absl_flags.FlagValues) -> None:
  """Declares the command's flags."""
  from jumprelu import data, evals, flags, sharding
  from jumprelu.run import process

  def string(name, text):
    absl_flags.DEFINE_string(name, None, text, flag_values=fv)

  string('release', 'The release directory.')
  string('out', 'The .jsonl file to write.')
  string('model', 'The language model (default: the one it was trained on).')
  string('data', 'The text, as for train (default: what it was trained on).')
  absl_flags.DEFINE_enum(
      'lm_dtype',
      'auto',
      ['auto', 'float32', 'bfloat16'],
      'Precision of the language model; auto: float32 on CPU, bfloat16 else.',
      flag_values=fv,
  )
  absl_flags.DEFINE_enum(
      'matmul_precision',
      None,
      ['default', 'high', 'highest'],
      'Precision of matrix products on accelerators (default: as in training).',
      flag_values=fv,
  )
  flags.define(fv, evals.Config(), prefix='eval.')
  flags.define(fv, data.Config(), prefix='corpus.')
  flags.define(fv, sharding.Config(), prefix='mesh.')
  flags.define(fv, process.Config(), prefix='process.')


def run(fv: absl_flags.FlagValues) -> None:
  """Checks the flags, then loads, evaluates and writes."""
  from jumprelu import data, evals, flags, members, sharding
  from jumprelu.run import process

  problems = [
      f'--{name} is needed' for name in ('release', 'out') if not fv[name].value
  ]
  out = pathlib.Path(fv.out or 'none.jsonl')
  if out.suffix != '.jsonl':
    problems.append(f'--out={fv.out}: must end in .jsonl')
  if problems:
    raise errors.UserError('; '.join(problems))
  config = flags.build(fv, evals.Config(), prefix='eval.')
  mesh = flags.build(fv, sharding.Config(), prefix='mesh.')
  root = pathlib.Path(fv.release)
  # On the host: no device may be touched before the processes have met.
  loaded = {
      path: members.read_member(root / path)
      for path in members.list_members(root)
  }
  training = next(iter(loaded.values()))[2].get('training') or {}
  corpus = flags.build(
      fv, data.Config(**training.get('corpus', {})), prefix='corpus.'
  )
  _check_writable(out)
  processes = flags.build(fv, process.Config(), prefix='process.')
  # No segments that a watchdog could wait for.
  processes = dataclasses.replace(processes, watchdog_seconds=0)
  with process.start(processes):
    # There is nothing to save: a signal ends the process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    rows = _evaluate(
        loaded,
        config=config,
        corpus=corpus,
        mesh=mesh,
        model=fv.model or training.get('model', 'gemma2_nano'),
        text=fv.data or training.get('data', 'stdlib'),
        lm_dtype=fv.lm_dtype,
        precision=fv.matmul_precision or training.get('matmul_precision'),
    )
    _report(rows, out)


def _report(rows: list[dict[str, Any]], out: pathlib.Path) -> None:
  """Writes the rows, and says so, in one process."""
  import jax

  from jumprelu import evaluate

  if jax.process_index() > 0:
    return
  evaluate.write_results(rows, out)
  evaluate.print_table(rows)
  print(f'{out}: {len(rows)} members; the same in {out.stem}.parquet')


def _check_writable(out: pathlib.Path) -> None:
  """Fails before the minutes of evaluation, not after."""
  out.parent.mkdir(parents=True, exist_ok=True)
  with out.open('a', encoding='utf-8'):
    pass
  if not out.stat().st_size:
    out.unlink()


def _evaluate(
    loaded: dict[str, Any],
    *,
    model: str,
    text: str,
    lm_dtype: str,
    precision: str | None,
    config: Any,
    corpus: Any,
    mesh: Any,
) -> list[dict[str, Any]]:
  """Returns the rows of all members of a release."""
  import jax

  from jumprelu import config as config_lib
  from jumprelu import data, evaluate, lm, sharding

  wanted = config_lib.resolve({'lm_dtype': lm_dtype})
  devices = sharding.make_mesh(mesh)
  language_model = lm.load(
      model,
      dtype=config_lib.dtype_on(wanted, jax.default_backend()),
      mesh=devices,
  )
  tokenizer = data.Tokenizer(
      language_model.tokenizer_path, rows=language_model.config.vocab
  )
  prepared = data.prepare(text, tokenizer, corpus)
  context = contextlib.nullcontext()
  if precision not in (None, 'default'):
    context = jax.default_matmul_precision(precision)
  with context:
    found = evaluate.evaluate_members(
        language_model,
        [
            _make_member(language_model, path, *parts)
            for path, parts in loaded.items()
        ],
        held_out=prepared.held_out,
        train=prepared.train,
        config=config,
        mesh=devices,
    )
  return found.rows


def _make_member(model, path, sae, params, config):
  """Returns a member as the evaluation wants it."""
  from jumprelu import evaluate, lm

  if config.get('input_gain') is False:
    # The tap has the norm's gain: dividing the inputs is dividing the rows.
    gain = lm.input_gain(model.params, config['layer']).astype('float32')
    params = params | {'W_enc': params['W_enc'] / gain[:, None]}
  meta = {
      name: config.get(name)
      for name in (
          'variant',
          'sparsity_coefficient',
          'target_l0',
          'seed',
          'tokens_trained',
      )
  }
  return evaluate.EvalMember(
      sae=sae,
      params=params,
      layer=config['layer'],
      site=config['site'],
      meta=meta | {'path': path},
  )


if __name__ == '__main__':
  sys.exit(main.launch('evaluate'))
