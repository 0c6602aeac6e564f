"""Attribution against exact patching, over all active latents of prompts.

The metric is the logit of the token that follows in the text minus that of the
likeliest other token. For each prompt the effects of all active latents are
ranked by gradient times activation, by integrated gradients and by exact
patching (`jumprelu.trace`). The table has the median over prompts of Spearman's
correlation of both methods with patching, with a bootstrap interval of 95 %.
Expected: above 0.8, and higher for integrated gradients.

With --starts, paths begin with these shares of the latents and the error
instead of without them. This tests whether correlations are low because the
path is far from the model.

  python -m experiments.interventions.patching \
      --release=jumprelu_demo/release --features=jumprelu_demo/features \
      --member=resid_post/layer_2/width_512/average_l0_16 \
      --starts=0,0.25,0.5,0.75,0.9 --out=patching.jsonl
"""

from collections.abc import Sequence
import sys
from typing import Any

from absl import flags
import numpy as np

from experiments.interventions import passages
from jumprelu.run import main as main_lib

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
    sae: Any,
    model: Any,
    *,
    texts: Sequence[Sequence[int]],
    steps: int,
    starts: Sequence[float] = (0.0,),
) -> list[dict[str, Any]]:
  """Returns a row per text, whose last token is the answer.

  Args:
    sae: The SAE.
    model: Its language model.
    texts: The texts, as token ids.
    steps: The number of points on the path of integrated gradients.
    starts: The shares of the nodes at the start of this path.
  """
  import jumprelu

  rows = []
  for text in texts:
    *prompt, answer = text
    logits = model.logits(prompt)[-1].copy()
    logits[answer] = -np.inf
    options = {'answer': int(answer), 'foil': int(logits.argmax())}
    exact = jumprelu.trace(model, prompt, [sae], method='patching', **options)
    methods: dict[str, dict[str, Any]] = {'gradient': {'method': 'gradient'}}
    for start in starts:
      methods[f'integrated from {start:g}'] = {
          'method': 'integrated',
          'steps': steps,
          'start': start,
      }
    active = exact.acts[0].latents != 0
    row = options | {'latents': int(active.sum()), 'metric': exact.metric}
    for name, how in methods.items():
      other = jumprelu.trace(model, prompt, [sae], **how, **options)
      row[name] = spearman(
          other.sites[0].latents[active], exact.sites[0].latents[active]
      )
    rows.append(row)
  return rows


def summary(
    rows: Sequence[dict[str, Any]], *, seed: int = 0
) -> list[list[Any]]:
  """Returns [method, median, low, high] for each method."""
  rng = np.random.default_rng(seed)
  draws = rng.integers(len(rows), size=(_DRAWS, len(rows)))
  lines = []
  for method in rows[0]:
    if not method.startswith(_METHODS):
      continue
    values = np.array([row[method] for row in rows])
    medians = np.median(values[draws], axis=1)
    interval = np.quantile(medians, (0.025, 0.975)).tolist()
    lines.append([method, float(np.median(values)), *interval])
  return lines


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  passages.define_flags(flag_values, prompts=50)
  flags.DEFINE_integer(
      'steps',
      16,
      'Points on the path of integrated gradients.',
      lower_bound=1,
      flag_values=flag_values,
  )
  flags.DEFINE_list(
      'starts',
      ['0'],
      'Shares of the nodes at the start of this path.',
      flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues) -> int:
  """Prints the summary, writes a row per prompt, returns the exit code."""
  from jumprelu.evals import table

  sae, model, texts = passages.load(flag_values, length=_LENGTH)
  starts = [float(share) for share in flag_values.starts]
  rows = measure(
      sae, model, texts=texts, steps=flag_values.steps, starts=starts
  )
  print(table.format_table(['method', 'median', 'low', 'high'], summary(rows)))
  passages.write(rows, flag_values.out)
  return 0


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.interventions.patching',
          sys.argv[1:],
      )
  )
