"""Columns of a run's rows that are measured on its training text.

They show whether an SAE fits the text it was trained on better than other text.
"""

import dataclasses

from jumprelu.evals import evaluate
from jumprelu.ops import products
from jumprelu.release import publish


def add(held_out: evaluate.Evaluation, run: publish.Run) -> evaluate.Evaluation:
  """Returns an evaluation of a run's members with columns of training text.

  The columns are `train_l0` and `train_fvu`, the number of different tokens of
  the training text as `unique_tokens`, and the passes over it as `epochs`.

  Args:
    held_out: The evaluation on held-out text.
    run: The run.
  """
  train = run.prepared.train
  # Few losses are computed, because none is reported: those of one batch, which
  # therefore has few sequences.
  settings = dataclasses.replace(
      run.config.eval, delta_loss_tokens=1, lm_sequences=2
  )
  with products.precision(run.config.matmul_precision):
    seen = evaluate.evaluate_members(
        run.model,
        publish.eval_members(run),
        held_out=train,
        config=settings,
        mesh=run.mesh,
    )
  origin = {
      'unique_tokens': train.manifest['tokens'],
      'epochs': run.config.tokens / (len(train) * train.sequence_length),
  }
  rows = [
      row | {f'train_{name}': other[name] for name in ('l0', 'fvu')} | origin
      for row, other in zip(held_out.rows, seen.rows, strict=True)
  ]
  return held_out._replace(rows=rows)
