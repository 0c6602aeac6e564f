"""Host-side progress of a run: counters, metrics and the progress line.

The metrics of a segment are read after the next segment has been dispatched, so
that the device is busy while the host reads them.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import sys
import time
from typing import Any

import jax
import numpy as np

from jumprelu import errors
from jumprelu.array_typing import Array
from jumprelu.training import config as config_lib
from jumprelu.training import step as step_lib

# A run fails if all members skip this number of steps in a row.
MAX_STUCK = 10

# A run fails if the non-finite or huge rows of a block exceed both this number
# and this share of its positions, because weights or dtype must then be wrong.
_MAX_DROPPED, _MAX_DROPPED_SHARE = 16, 1e-4

# The smallest number of seconds between two reports.
_SECONDS = 5.0


@dataclasses.dataclass
class Counts:
  """Totals of a run over all its starts, which checkpoints store."""

  step: int = 0
  tokens_trained: int = 0  # Kept positions only.
  rows_dropped: int = 0  # Non-finite or huge rows of text.
  seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Progress:
  """The progress of a run at the end of a segment.

  `l0` and `fvu` are (minimum, median, maximum) over the members of the means
  over the segment.
  """

  step: int
  total_steps: int
  l0: tuple[float, float, float]
  fvu: tuple[float, float, float]
  tokens_per_second: float
  seconds_left: float

  def line(self) -> str:
    """Returns the summary as one line."""
    left = round(self.seconds_left)
    hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
    eta = f'{hours}:{minutes:02}:{seconds:02}'
    return (
        f'step {self.step}/{self.total_steps}'
        f' {100 * self.step / self.total_steps:.1f}%'
        f' | L0 {"/".join(f"{x:.1f}" for x in self.l0)}'
        f' | FVU {"/".join(f"{x:.3f}" for x in self.fvu)}'
        f' (min/median/max) | {self.tokens_per_second:,.0f} tokens/s'
        f' | ETA {eta}'
    )


class Reporter:
  """Reads the metrics of each segment, writes them and reports progress."""

  def __init__(
      self,
      counts: Counts,
      config: config_lib.TrainConfig,
      *,
      write: Callable[[dict[str, Any]], None],
      on_progress: Callable[[Progress], None] | None = None,
      skipped: Mapping[str, np.ndarray] | None = None,
  ):
    """Starts the clock.

    Args:
      counts: The totals of the run so far, which the reporter updates.
      config: The config of the run.
      write: Called with each segment's line of metrics.
      on_progress: Called with the progress every few seconds; prints by
        default.
      skipped: {group: [members]}: the number of steps that each member has
        skipped so far, by default 0.
    """
    self.counts = counts
    self._total = config.steps
    self._batch = config.stream.batch
    self._batches = config.stream.batches
    self._write = write
    self._on_progress = on_progress or print_line
    self._pending: tuple[int, step_lib.Metrics, int | Array] | None = None
    self._skipped = dict(skipped or {})  # After the last segment that was read.
    self._stuck = 0  # The last steps in a row that all members skipped.
    self._clock = self._reported = time.monotonic()
    # Step and time at the end of the first segment. Speed is measured from
    # then, because the first segment includes compilation.
    self._mark: tuple[int, float] | None = None
    self.latest: Progress | None = None

  def add(
      self, step: int, metrics: step_lib.Metrics, *, dropped: int | Array
  ) -> None:
    """Queues the metrics of a segment, and reads those of the previous one.

    Args:
      step: The number of steps of the run at the end of the segment.
      metrics: The metrics of the segment.
      dropped: The number of non-finite or huge rows of text in the segment's
        block.

    Raises:
      DataError, NumericalError: as `flush`, for the previous segment.
    """
    self.flush()
    self._pending = step, metrics, dropped

  def flush(self) -> None:
    """Waits for the last segment that was added, and reads its metrics.

    Raises:
      DataError: too many rows of the block are non-finite or huge.
      NumericalError: all members skipped `MAX_STUCK` steps in a row.
    """
    if self._pending is None:
      return
    step, metrics, dropped = self._pending
    self._pending = None
    metrics, dropped = jax.device_get((metrics, dropped))
    # Rows after the last step of the segment are zeros.
    taken = step - self.counts.step
    metrics = jax.tree.map(lambda x: x[:taken], metrics)
    now = time.monotonic()
    self.counts.seconds += now - self._clock
    self._clock = now
    self.counts.step = step
    self.counts.tokens_trained += int(metrics.kept.sum(dtype=np.int64))
    if step % self._batches == 0 or step == self._total:
      self.counts.rows_dropped += int(dropped)
    self._write(self._record(metrics))
    self._check_block(int(dropped))
    self._check(metrics)
    self._update(metrics, now)

  def _check_block(self, dropped: int) -> None:
    """Raises DataError if too many rows of a block are non-finite or huge."""
    positions = self._batches * self._batch
    if dropped > max(_MAX_DROPPED, _MAX_DROPPED_SHARE * positions):
      raise errors.DataError(
          f'{dropped} of {positions} positions of a block have huge or'
          ' non-finite activations; check that the weights of the language'
          ' model are intact, or choose another --lm_dtype'
      )

  def _record(self, metrics: step_lib.Metrics) -> dict[str, Any]:
    """Returns a segment's line of metrics.

    Metrics are means over the segment; `dead_share` and counters are those at
    its end.
    """
    last = ('dead_share', 'skipped')
    groups = {
        name: {
            metric: (
                values[-1] if metric in last else values.mean(0, np.float64)
            ).tolist()
            for metric, values in group.items()
        }
        for name, group in metrics.groups.items()
    }
    return {
        **dataclasses.asdict(self.counts),
        'positions': self.counts.step * self._batch,
        'learning_rate': float(metrics.learning_rate[-1]),
        'sparsity': float(metrics.sparsity[-1]),
        'groups': groups,
    }

  def _check(self, metrics: step_lib.Metrics) -> None:
    """Raises NumericalError after `MAX_STUCK` skipped steps of all members."""
    is_skipped = []
    for name, group in metrics.groups.items():
      counts = np.asarray(group['skipped'])  # [steps, members]
      previous = self._skipped.get(name)
      before = (0 * counts[0] if previous is None else previous)[None]
      is_skipped.append(np.diff(counts, axis=0, prepend=before) > 0)
      self._skipped[name] = counts[-1]
    for stuck in map(all, np.concatenate(is_skipped, axis=1)):
      self._stuck = self._stuck + 1 if stuck else 0
      if self._stuck >= MAX_STUCK:
        raise errors.NumericalError(
            f'step {self.counts.step}: all members skipped {MAX_STUCK} steps in'
            ' a row, because loss or gradients were not finite; lower'
            ' --optim.learning_rate'
        )

  def _update(self, metrics: step_lib.Metrics, now: float) -> None:
    """Updates the latest progress, and reports it if a report is due."""
    step = self.counts.step
    if self._mark is None:
      self._mark = step, now
    first, since = self._mark
    steps_per_second = (step - first) / (now - since) if step > first else 0.0
    left = (self._total - step) / steps_per_second if steps_per_second else 0.0
    self.latest = Progress(
        step=step,
        total_steps=self._total,
        l0=_spread([g['l0'] for g in metrics.groups.values()]),
        fvu=_spread([g['fvu'] for g in metrics.groups.values()]),
        tokens_per_second=steps_per_second * self._batch,
        seconds_left=left,
    )
    due = now - self._reported >= _SECONDS and step > first
    if due or step == self._total:
      self._reported = now
      self._on_progress(self.latest)


def print_line(progress: Progress) -> None:
  """Prints the progress as a line to stderr; only process 0 prints."""
  if jax.process_index() == 0:
    print(progress.line(), file=sys.stderr, flush=True)


def _spread(values: Sequence[Array | np.ndarray]) -> tuple[float, float, float]:
  """Returns minimum, median and maximum over members of the mean over steps.

  Members with a non-finite mean are left out. Without others, all are NaN.

  Args:
    values: [steps, members] of each group.
  """
  flat = np.concatenate([value.mean(0, np.float64) for value in values])
  flat = flat[np.isfinite(flat)]
  if not flat.size:
    return float('nan'), float('nan'), float('nan')
  return float(flat.min()), float(np.median(flat)), float(flat.max())
