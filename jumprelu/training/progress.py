"""What the host sees of a run: counts, metrics a segment late, one line.

Metrics are read one segment after they were dispatched, so that the device
never waits for the host.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import sys
import time
from typing import Any

import jax
import numpy as np

from jumprelu import errors
from jumprelu.training import config as config_lib
from jumprelu.training import step as step_lib

# Steps in a row in which no member could be stepped, before the run gives up.
MAX_STUCK = 10

# Rows of text a block may lose for being non-finite or absurd: this many, or
# this share. More means wrong weights or dtype.
_MAX_DROPPED, _MAX_DROPPED_SHARE = 16, 1e-4

_SECONDS = 5.0


@dataclasses.dataclass
class Counts:
  """What has been done, in integers of any size; stored in checkpoints."""

  step: int = 0
  tokens_trained: int = 0  # Kept ones.
  rows_dropped: int = 0
  seconds: float = 0.0  # Of training, over all restarts.


@dataclasses.dataclass(frozen=True)
class Progress:
  """The state of a run in a few numbers; min, median, max over members."""

  step: int
  total_steps: int
  l0: tuple[float, float, float]
  fvu: tuple[float, float, float]
  tokens_per_second: float
  seconds_left: float

  def line(self) -> str:
    """One line for people."""
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
  """Reads the metrics of each segment, and tells who wants to know."""

  def __init__(
      self,
      counts: Counts,
      config: config_lib.TrainConfig,
      *,
      write: Callable[[dict[str, Any]], None],
      on_progress: Callable[[Progress], None] | None = None,
      skipped: Mapping[str, np.ndarray] | None = None,
  ):
    """Starts reporting.

    Args:
      counts: Of the run so far; kept up to date.
      config: The run's.
      write: Receives a line of metrics a segment.
      on_progress: Receives the progress every few seconds.
      skipped: {group: [members]}, the steps skipped so far; none by default.
    """
    self.counts = counts
    self._total = config.steps
    self._batch = config.stream.batch
    self._batches = config.stream.batches
    self._write = write
    self._on_progress = on_progress or print_line
    self._pending: tuple[int, step_lib.Metrics, Any] | None = None
    self._skipped = dict(skipped or {})  # At last reading.
    self._stuck = 0
    self._clock = self._spoke = time.monotonic()
    # Speed is taken from the second report on: the first one compiles.
    self._mark: tuple[int, float] | None = None
    self.latest: Progress | None = None

  def add(self, step: int, metrics: step_lib.Metrics, *, dropped: Any) -> None:
    """Takes what the segment that ends at `step` reports; reads the one before.

    Args:
      step: Steps done.
      metrics: The segment's.
      dropped: Rows of text that its block lost.
    """
    self.flush()
    self._pending = step, metrics, dropped

  def flush(self) -> None:
    """Waits for the segment that was added last, and reads it."""
    if self._pending is None:
      return
    step, metrics, dropped = self._pending
    self._pending = None
    metrics, dropped = jax.device_get((metrics, dropped))
    # Room behind the steps that were taken is not read.
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
    """Ends a run whose activations are broken."""
    positions = self._batches * self._batch
    if dropped > max(_MAX_DROPPED, _MAX_DROPPED_SHARE * positions):
      raise errors.DataError(
          f'{dropped} of {positions} positions have activations that are not'
          ' finite or out of all proportion; are the weights damaged, or of'
          ' another dtype than lm_dtype?'
      )

  def _record(self, metrics: step_lib.Metrics) -> dict[str, Any]:
    """One line of metrics: means over the segment, counters at its end."""
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
    """Gives up when nothing has been learnt for a while."""
    grew = []
    for name, group in metrics.groups.items():
      counts = np.asarray(group['skipped'])  # [steps, members]
      previous = self._skipped.get(name)
      before = (0 * counts[0] if previous is None else previous)[None]
      grew.append(np.diff(counts, axis=0, prepend=before) > 0)
      self._skipped[name] = counts[-1]
    for stuck in map(all, np.concatenate(grew, axis=1)):
      self._stuck = self._stuck + 1 if stuck else 0
      if self._stuck >= MAX_STUCK:
        raise errors.NumericalError(
            f'step {self.counts.step}: no member could be stepped for'
            f' {MAX_STUCK} steps, loss or gradients are not finite; lower'
            ' --optim.learning_rate'
        )

  def _update(self, metrics: step_lib.Metrics, now: float) -> None:
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
    due = now - self._spoke >= _SECONDS and step > first
    if due or step == self._total:
      self._spoke = now
      self._on_progress(self.latest)


def print_line(progress: Progress) -> None:
  """Prints the line to stderr, from one process."""
  if jax.process_index() == 0:
    print(progress.line(), file=sys.stderr, flush=True)


def _spread(values: Sequence[Any]) -> tuple[float, float, float]:
  """Over all members of all groups: minimum, median, maximum of the means."""
  flat = np.concatenate([value.mean(0, np.float64) for value in values])
  flat = flat[np.isfinite(flat)]
  if not flat.size:
    return float('nan'), float('nan'), float('nan')
  return float(flat.min()), float(np.median(flat)), float(flat.max())
