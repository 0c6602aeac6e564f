"""Steering: does a latent promote the tokens that its page lists?

Prompts are windows of held-out text. For each of some latents, which are named
beforehand, `strength` times the latent's largest activation is added at the
last token of the prompt and at all new tokens. The rate is the share of the new
tokens that are among those that the latent's page lists as promoted. The
control is the same rate under random other latents, whose change has the same
norm. The difference is taken per prompt; its error is over prompts. Expected:
the difference exceeds 3 standard errors. Latents for which it does not are in
the table too.

  python -m experiments.interventions.steering \
      --release=jumprelu_demo/release --features=jumprelu_demo/features \
      --member=resid_post/layer_2/width_512/average_l0_16 --strength=1 \
      --latents=2,6,197,428,59,32,391,178,369,230,322,416,234
"""

from collections.abc import Sequence
import pathlib
import sys
from typing import Any

from absl import flags

from experiments.interventions import passages
from jumprelu.run import main as main_lib

# Tokens of a prompt, BOS excepted.
_LENGTH = 12


def measure(
    sae: Any,
    model: Any,
    features: pathlib.Path,
    *,
    latents: Sequence[int],
    strength: float,
    prompts: Sequence[Sequence[int]],
    controls: int,
    tokens: int,
    seed: int = 0,
) -> list[dict[str, Any]]:
  """Returns a row per latent: its rate, the controls', and the difference.

  Args:
    sae: The SAE.
    model: Its language model.
    features: The folder of features of its release.
    latents: The latents that are tested.
    strength: The change, in units of each latent's largest activation.
    prompts: The prompts, as token ids.
    controls: The number of random latents for each tested one.
    tokens: The number of new tokens.
    seed: The seed of the choice of the controls.
  """
  import numpy as np

  from jumprelu.features import reading

  rows = reading.read_latents(
      features,
      sae.path,
      latents=sorted(latents),
      columns=['latent', 'largest', 'promoted'],
  )
  norms = np.linalg.norm(sae.W_dec, axis=-1)
  rng = np.random.default_rng(seed)
  plain = [model.generate(prompt, tokens=tokens).tokens for prompt in prompts]
  results = []
  for row in sorted(rows, key=lambda row: latents.index(row['latent'])):
    latent, value = row['latent'], float(strength * row['largest'])
    promoted = [entry['token'] for entry in row['promoted']]
    options = {'prompts': prompts, 'tokens': tokens, 'promoted': promoted}
    tested = _rates(sae, model, latent, value, **options)
    others = np.delete(np.arange(sae.width), latent)
    drawn = rng.choice(others, controls, replace=False)
    by_control = [
        _rates(sae, model, int(j), value * norms[latent] / norms[j], **options)
        for j in drawn
    ]
    control = np.mean(by_control, axis=0)
    origin = {'member': sae.path, 'latent': latent, 'value': value}
    rate = float(np.isin(np.concatenate(plain), promoted).mean())
    results.append(origin | _compared(tested, control) | {'rate_plain': rate})
  return results


def _compared(tested: Any, control: Any) -> dict[str, Any]:
  """Returns the rates per prompt of a latent and its controls, compared."""
  difference = passages.mean(tested - control)
  return {
      'prompts': len(tested),
      'rate': passages.mean(tested).value,
      'rate_controls': passages.mean(control).value,
      'difference': difference.value,
      'difference_stderr': difference.stderr,
      'exceeds_3_stderr': difference.value > 3 * difference.stderr,
  }


def _rates(
    sae: Any,
    model: Any,
    latent: int,
    value: Any,
    *,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    promoted: Sequence[int],
) -> Any:
  """Returns the rate of promoted tokens for each prompt, under an edit."""
  import numpy as np

  from jumprelu.api import edits

  edit = edits.Edit(sae, latent, value=float(value), positions=slice(-1, None))
  made = [
      model.generate(prompt, tokens=tokens, edits=[edit]).tokens
      for prompt in prompts
  ]
  return np.array([np.isin(new, promoted).mean() for new in made])


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  passages.define_flags(flag_values, prompts=100)
  flags.DEFINE_list('latents', [], 'The latents.', flag_values=flag_values)
  flags.DEFINE_float(
      'strength',
      1.0,
      'The change, in largest activations.',
      flag_values=flag_values,
  )
  for name, default, meaning in (
      ('controls', 20, 'Random latents for each of them.'),
      ('tokens', 20, 'New tokens of each prompt.'),
  ):
    flags.DEFINE_integer(
        name, default, meaning, lower_bound=1, flag_values=flag_values
    )


def run(flag_values: flags.FlagValues) -> int:
  """Prints the table, writes its rows, and returns the exit code."""
  from jumprelu.evals import table

  latents = passages.numbers('latents', flag_values.latents)
  sae, model, prompts = passages.load(flag_values, length=_LENGTH)
  rows = measure(
      sae,
      model,
      pathlib.Path(flag_values.features),
      latents=latents,
      strength=flag_values.strength,
      prompts=prompts,
      controls=flag_values.controls,
      tokens=flag_values.tokens,
  )
  print(table.format_table(list(rows[0]), [list(r.values()) for r in rows]))
  passages.write(rows, flag_values.out)
  return 0


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.interventions.steering',
          sys.argv[1:],
      )
  )
