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
    --member=resid_post/layer_2/width_512/average_l0_28 \
    --latents=428,434,32,391,178 --strength=1 --out=steering.jsonl
"""

from collections.abc import Sequence
import json
import pathlib
from typing import Any

from absl import app, flags

from experiments.interventions import passages

_RELEASE = flags.DEFINE_string('release', None, 'The release.')
_FEATURES = flags.DEFINE_string('features', None, 'Features of the release.')
_MEMBER = flags.DEFINE_string('member', None, 'The path of the SAE.')
_LATENTS = flags.DEFINE_list('latents', [], 'The latents.')
_STRENGTH = flags.DEFINE_float('strength', 1.0, 'In largest activations.')
_PROMPTS = flags.DEFINE_integer('prompts', 100, 'The number of prompts.')
_CONTROLS = flags.DEFINE_integer('controls', 20, 'Random latents.')
_TOKENS = flags.DEFINE_integer('tokens', 20, 'The number of new tokens.')
_OUT = flags.DEFINE_string('out', None, 'The .jsonl file of the rows.')

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
    difference = passages.mean(tested - control)
    results.append(
        {
            'member': sae.path,
            'latent': latent,
            'value': value,
            'prompts': len(prompts),
            'rate': passages.mean(tested).value,
            'rate_controls': passages.mean(control).value,
            'rate_plain': float(
                np.isin(np.concatenate(plain), promoted).mean()
            ),
            'difference': difference.value,
            'difference_stderr': difference.stderr,
            'exceeds_3_stderr': difference.value > 3 * difference.stderr,
        }
    )
  return results


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


def main(argv: Sequence[str]) -> None:
  """Prints the table and writes its rows."""
  del argv
  import jumprelu
  from jumprelu.evals import table

  sae = jumprelu.load(_RELEASE.value)[_MEMBER.value]
  model = sae.load_lm()
  features = pathlib.Path(_FEATURES.value)
  rows = measure(
      sae,
      model,
      features,
      latents=[int(latent) for latent in _LATENTS.value],
      strength=_STRENGTH.value,
      prompts=passages.prompts(
          features, count=_PROMPTS.value, length=_LENGTH, bos=model.bos
      ),
      controls=_CONTROLS.value,
      tokens=_TOKENS.value,
  )
  print(table.format_table(list(rows[0]), [list(r.values()) for r in rows]))
  if _OUT.value:
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    pathlib.Path(_OUT.value).write_text(text, encoding='utf-8')


if __name__ == '__main__':
  flags.mark_flags_as_required(['release', 'features', 'member', 'latents'])
  app.run(main)
