"""Attribution against exact patching, over all active latents of prompts.

The metric is the logit of the token that follows in the text minus that of the
likeliest other token. For each prompt the effects of all active latents are
ranked by gradient times activation, by integrated gradients and by exact
patching (`jumprelu.trace`). The table has the median over prompts of Spearman's
correlation of both methods with patching, with a bootstrap interval of 95 %.
Expected: above 0.8, and higher for integrated gradients.

python -m experiments.interventions.patching \
    --release=jumprelu_demo/release --features=jumprelu_demo/features \
    --member=resid_post/layer_2/width_512/average_l0_28 --out=patching.jsonl
"""

from collections.abc import Sequence
import json
import pathlib
from typing import Any

from absl import app, flags
import numpy as np

from experiments.interventions import passages

_RELEASE = flags.DEFINE_string('release', None, 'The release.')
_FEATURES = flags.DEFINE_string('features', None, 'Features of the release.')
_MEMBER = flags.DEFINE_string('member', None, 'The path of the SAE.')
_PROMPTS = flags.DEFINE_integer('prompts', 50, 'The number of prompts.')
_STEPS = flags.DEFINE_integer('steps', 16, 'Steps of integrated gradients.')
_OUT = flags.DEFINE_string('out', None, 'The .jsonl file, a row per prompt.')

# Tokens of a prompt and of the answer after it, BOS excepted.
_LENGTH = 16
_METHODS = ('gradient', 'integrated')
_DRAWS = 2_000


def spearman(first: Any, second: Any) -> float:
  """Returns Spearman's correlation of two vectors; ties share a rank."""
  ranks = [_ranks(np.asarray(x)) for x in (first, second)]
  return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
  """Returns the mean rank of each value among equal ones."""
  _, inverse, counts = np.unique(
      values, return_inverse=True, return_counts=True
  )
  ends = np.cumsum(counts)
  return (ends - (counts - 1) / 2)[inverse]


def measure(
    sae: Any, model: Any, *, texts: Sequence[Sequence[int]], steps: int
) -> list[dict[str, Any]]:
  """Returns a row per text, whose last token is the answer.

  Args:
    sae: The SAE.
    model: Its language model.
    texts: The texts, as token ids.
    steps: The number of steps of integrated gradients.
  """
  import jumprelu

  rows = []
  for text in texts:
    *prompt, answer = text
    logits = model.logits(prompt)[-1].copy()
    logits[answer] = -np.inf
    foil = int(logits.argmax())
    traces = {
        method: jumprelu.trace(
            model,
            prompt,
            [sae],
            answer=int(answer),
            foil=foil,
            method=method,
            steps=steps,
        )
        for method in (*_METHODS, 'patching')
    }
    active = traces['patching'].acts[0].latents != 0
    effects = {m: t.sites[0].latents[active] for m, t in traces.items()}
    row = {'answer': int(answer), 'foil': foil, 'latents': int(active.sum())}
    row['metric'] = traces['patching'].metric
    for method in _METHODS:
      row[method] = spearman(effects[method], effects['patching'])
    rows.append(row)
  return rows


def summary(
    rows: Sequence[dict[str, Any]], *, seed: int = 0
) -> list[list[Any]]:
  """Returns [method, median, low, high] for each method."""
  rng = np.random.default_rng(seed)
  draws = rng.integers(len(rows), size=(_DRAWS, len(rows)))
  lines = []
  for method in _METHODS:
    values = np.array([row[method] for row in rows])
    medians = np.median(values[draws], axis=1)
    interval = np.quantile(medians, (0.025, 0.975)).tolist()
    lines.append([method, float(np.median(values)), *interval])
  return lines


def main(argv: Sequence[str]) -> None:
  """Prints the summary and writes a row per prompt."""
  del argv
  import jumprelu
  from jumprelu.evals import table

  sae = jumprelu.load(_RELEASE.value)[_MEMBER.value]
  model = sae.load_lm()
  texts = passages.prompts(
      pathlib.Path(_FEATURES.value),
      count=_PROMPTS.value,
      length=_LENGTH,
      bos=model.bos,
  )
  rows = measure(sae, model, texts=texts, steps=_STEPS.value)
  print(table.format_table(['method', 'median', 'low', 'high'], summary(rows)))
  if _OUT.value:
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    pathlib.Path(_OUT.value).write_text(text, encoding='utf-8')


if __name__ == '__main__':
  flags.mark_flags_as_required(['release', 'features', 'member'])
  app.run(main)
