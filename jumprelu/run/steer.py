r"""Continues prompts while latents of an SAE are edited, and prints a table.

A latent is an activation of the SAE; its decoder row is a direction of the
language model's activations x. Steering adds to x the change of the latent
times this row, at each token of the prompt and of the continuation (BOS
excepted). The SAE's error is kept, so that strength 0 of `add` is the plain
model.

  jumprelu steer jumprelu_demo/release --members=resid_post/ --l0=28 \
      --latent=172 --prompt='def ' --strengths=0.5,1,2
  jumprelu steer --release=DIR --members=layer_2/width_512/average_l0_28 \
      --latent=172,453 --op=set --prompts=prompts.txt --keyword=line \
      --out=page.html

Strengths are in units of the latent's largest activation, which is read from
--features, a folder of `jumprelu features`; `jumprelu demo` writes it beside
its release. --unit=8.5 states the unit instead, in raw activations.

Columns: strength (- for the plain model), KL(plain || edited) of the next-token
distributions in nats, the plain model's loss on the continuation in nats (high
for incoherent text), occurrences of --keyword per new token, the result of
--scorer, and the continuation. Numbers are means over the prompts.

--scorer=FILE.py:FUNCTION names a function of yours that is called with the
prompt and the continuation, and returns a number. --out=PAGE.html writes the
continuations side by side, --out=ROWS.jsonl a row for each of them.
"""

import pathlib
import sys
from typing import Any

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.run import main, prompts

POSITIONAL = 'release'
EXTRA = 'train'
MAIN_FLAGS = (
    'release',
    'members',
    'l0',
    'prompt',
    'prompts',
    'latent',
    'strengths',
    'op',
    'unit',
    'features',
    'keyword',
    'scorer',
    'out',
)
# As in `evals.edits.OPS`, which imports JAX.
_OPS = ('add', 'set', 'scale', 'ablate', 'cap', 'set_if_active')


def define_flags(fv: absl_flags.FlagValues) -> None:
  """Declares the command's flags."""
  from jumprelu.run import flags

  prompts.define_flags(fv)

  def text(name, default, meaning):
    absl_flags.DEFINE_string(name, default, meaning, flag_values=fv)

  absl_flags.DEFINE_list('latent', [], 'The latents.', flag_values=fv)
  absl_flags.DEFINE_list(
      'strengths', ['1', '2'], 'Values of the edit.', flag_values=fv
  )
  absl_flags.DEFINE_enum(
      'op', 'add', _OPS, 'How the latent is changed.', flag_values=fv
  )
  text('unit', 'largest', 'Activation of strength 1: largest, or a number.')
  text('features', None, 'Folder of features with the largest activations.')
  absl_flags.DEFINE_enum(
      'positions',
      'all',
      ['all', 'prompt', 'new'],
      'The edited tokens: all, those of the prompt, or its last and the new.',
      flag_values=fv,
  )
  flags.define_integer(
      fv, 'tokens', 40, 'The number of new tokens.', lower_bound=1
  )
  absl_flags.DEFINE_float(
      'temperature',
      0.0,
      'Temperature of samples; 0 takes the likeliest token.',
      lower_bound=0.0,
      flag_values=fv,
  )
  flags.define_integer(fv, 'seed', 0, 'Seed of the samples.', lower_bound=0)
  text('keyword', None, 'A text whose occurrences are counted, in any case.')
  text('scorer', None, 'Your function FILE.py:FUNCTION of two texts.')
  text('out', None, 'PAGE.html or ROWS.jsonl to write.')


def run(fv: absl_flags.FlagValues) -> None:
  """Checks the flags, generates the continuations and prints the table."""
  problems = [
      f'--{n} is needed' for n in ('release', 'latent') if not fv[n].value
  ]
  if problems:
    raise errors.UserError('; '.join(problems))
  latents = _numbers('latent', fv.latent, int)
  strengths = _numbers('strengths', fv.strengths, float)
  texts = prompts.read(fv)
  out = prompts.out(fv, '.html', '.jsonl')
  scorer = _scorer(fv.scorer) if fv.scorer else None

  from jumprelu.explore import steering_page

  (sae,), model = prompts.load(fv, single=True)
  units = dict(zip(latents, _units(fv, sae, latents), strict=True))
  rows = _rows(
      fv,
      sae,
      model,
      units=units,
      strengths=strengths,
      texts=texts,
      scorer=scorer,
  )
  print(_table(rows))
  if out:
    steering_page.write(rows, out, title=f'Steering {sae.path}')
    print(f'{out}: {len(rows)} continuations')


def _rows(fv, sae, model, *, units, strengths, texts, scorer):
  """Returns a row per latent, prompt and strength; `units` are by latent."""
  from jumprelu.api import steering

  rows = []
  for latent, unit in units.items():
    for prompt in texts:
      several = steering.strengths_of(
          sae,
          latent,
          strengths,
          op=fv.op,
          unit=unit,
          positions=_positions(fv.positions, len(model.tokenize(prompt))),
      )
      for strength, edits in several:
        made = steering.steer(
            model,
            prompt,
            edits,
            tokens=fv.tokens,
            temperature=fv.temperature,
            seed=fv.seed,
        )
        row = {'latent': latent, 'strength': strength, 'unit': unit}
        row |= {'prompt': prompt, 'kl': made.kl, 'loss': made.loss}
        if fv.keyword:
          row['keyword'] = steering.keyword_rate(made, fv.keyword)
        if scorer:
          row['score'] = _score(scorer, fv.scorer, prompt, made.continuation)
        rows.append(row | {'continuation': made.continuation})
  return rows


def _positions(name: str, count: int) -> slice | None:
  """Returns the edited tokens after a prompt of `count` tokens."""
  by_name = {'all': None, 'prompt': slice(0, count), 'new': slice(-1, None)}
  return by_name[name]


def _table(rows: list[dict[str, Any]]) -> str:
  """Returns the table: means over prompts, and the first continuation."""
  from jumprelu.evals import table

  groups: dict[Any, list[dict[str, Any]]] = {}
  for row in rows:
    groups.setdefault((row['latent'], row['strength']), []).append(row)
  numbers = [n for n in ('kl', 'loss', 'keyword', 'score') if n in rows[0]]
  lines = []
  for (latent, strength), group in groups.items():
    means = [sum(row[n] for row in group) / len(group) for n in numbers]
    text = repr(group[0]['continuation'])
    text = text if len(text) <= 60 else text[:57] + '...'
    lines.append([latent, strength, *means, text])
  return table.format_table(
      ['latent', 'strength', *numbers, 'continuation'], lines
  )


def _units(fv, sae, latents: list[int]) -> list[float]:
  """Returns the activation of strength 1 of each latent."""
  from jumprelu.api import steering

  if fv.op == 'scale' or fv.op == 'ablate':
    return [1.0] * len(latents)
  if fv.unit != 'largest':
    return _numbers('unit', [fv.unit], float) * len(latents)
  release = pathlib.Path(fv.release).expanduser()
  folder = pathlib.Path(fv.features or release.parent / 'features').expanduser()
  if not (folder / 'manifest.json').exists():
    raise errors.UserError(
        f'--features={folder}: no folder of features; collect it with `jumprelu'
        ' features`, or state --unit=NUMBER in raw activations'
    )
  return steering.largest_activations(folder, sae.path, latents)


def _numbers(name: str, texts: list[str], kind: Any) -> list[Any]:
  try:
    return [kind(text) for text in texts]
  except ValueError as error:
    raise errors.UserError(
        f'--{name}={",".join(texts)}: {error}; write numbers with commas'
    ) from error


def _scorer(text: str) -> Any:
  """Returns the function of --scorer=FILE.py:FUNCTION."""
  import runpy

  path, _, name = text.rpartition(':')
  if not path or not pathlib.Path(path).is_file():
    raise errors.UserError(
        f'--scorer={text}: no such file; write FILE.py:FUNCTION'
    )
  function = runpy.run_path(path).get(name)
  if not callable(function):
    raise errors.UserError(f'--scorer={text}: {path} has no function {name!r}')
  return function


def _score(scorer: Any, name: str, prompt: str, continuation: str) -> float:
  try:
    return float(scorer(prompt, continuation))
  except Exception as error:
    raise errors.UserError(
        f'--scorer={name}: {type(error).__name__}: {error}; it must return a'
        ' number for two texts'
    ) from error


if __name__ == '__main__':
  sys.exit(main.launch('steer'))
