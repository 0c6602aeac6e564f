"""Host-side progress of a run: counters, metrics, speed and reports.

The metrics of a segment are read after the next segment has been dispatched, so
that the device is busy while the host reads them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import itertools
import math
import time
from typing import Any

from absl import logging
import jax
import numpy as np

from jumprelu import errors
from jumprelu.array_typing import Array
from jumprelu.training import config as config_lib
from jumprelu.training import diagnosis, progress_lines, suite, thresholds
from jumprelu.training import step as step_lib

# A run goes back to a checkpoint if all members skip this number of steps in a
# row.
MAX_STUCK = 10

# A run fails if the non-finite or huge rows of a block exceed both this number
# and this share of its positions, because weights or dtype must then be wrong.
_MAX_DROPPED, _MAX_DROPPED_SHARE = 16, 1e-4

# The smallest and the largest number of seconds between two reports that are
# due.
_SECONDS, _MAX_SECONDS = 5.0, 60.0


class StuckError(errors.NumericalError):
  """No member can make further steps on these batches.

  Attributes:
    first: The first of the failing steps, counted from 0.
  """

  def __init__(self, message: str, *, first: int):
    super().__init__(message)
    self.first = first


@dataclasses.dataclass
class Counts:
  """Totals of a run over all its starts, which checkpoints store."""

  step: int = 0
  tokens_trained: int = 0  # Kept positions only.
  rows_dropped: int = 0  # Non-finite or huge rows of text.
  seconds: float = 0.0
  # How often the run went back to a checkpoint, to continue on other data.
  rollbacks: int = 0
  # The names of members that are frozen, because they kept failing.
  frozen: tuple[str, ...] = ()


class Speed:
  """Measures the steps per second, including the forward passes of blocks.

  Only whole blocks are measured, from the end of the segment at one position of
  a block to the end of that at the same position of a later block. Otherwise
  the speed within a block, which is much higher, would be that of the run.
  """

  def __init__(self, step: int, batches: int, *, now: float):
    """Starts the clock.

    Args:
      step: The step at which the run starts.
      batches: The number of batches of a block.
      now: The time in seconds.
    """
    self._start = step, now
    self._batches = batches
    # {position in a block: (step, time) of the first end of a segment there}.
    self._marks: dict[int, tuple[int, float]] = {}
    self._latest = 0.0

  def update(self, step: int, now: float) -> tuple[float, bool]:
    """Returns the steps per second, and whether they are a lower bound.

    Until a whole block is measured, the speed is that since the start, which
    includes compilation and is therefore too low.

    Args:
      step: The step at the end of a segment.
      now: The time in seconds.
    """
    first, since = self._marks.setdefault(step % self._batches, (step, now))
    if step > first:
      self._latest = (step - first) / max(now - since, 1e-9)
    if self._latest:
      return self._latest, False
    first, since = self._start
    return (step - first) / max(now - since, 1e-9), True


class Reporter:
  """Reads the metrics of each segment, writes them and reports progress."""

  def __init__(
      self,
      counts: Counts,
      config: config_lib.TrainConfig,
      groups: Sequence[suite.Group],
      *,
      write: Callable[[dict[str, Any]], None],
      on_progress: Callable[
          [progress_lines.Progress], None
      ] = progress_lines.print_progress,
      skipped: Mapping[str, np.ndarray] | None = None,
      mesh: jax.sharding.Mesh | None = None,
  ):
    """Starts the clock.

    Args:
      counts: The totals of the run so far, which the reporter updates.
      config: The config of the run.
      groups: The groups of the suite.
      write: Called with each segment's line of metrics.
      on_progress: Called with the progress every few seconds; prints by
        default.
      skipped: {group: [members]}: the number of steps that each member has
        skipped so far, by default 0.
      mesh: The devices of the states; None for one device.
    """
    self.counts = counts
    self._total = config.steps
    self._batch = config.stream.batch
    self._batches = config.stream.batches
    self._learning_rate = config.optim.learning_rate
    self._groups = tuple(groups)
    self._mean_thresholds = thresholds.make(groups, mesh=mesh)
    self._write = write
    self._on_progress = on_progress
    self._pending: tuple[int, Any, int | Array, Any] | None = None
    # After the last segment that was read.
    self._skipped = dict(skipped or {})
    self._frozen = {
        group.name: np.asarray(
            [name in counts.frozen for name in suite.names(group)]
        )
        for group in groups
    }
    self._means: Mapping[str, np.ndarray] = {}
    self._diagnosed: set[tuple[str, str]] = set()
    self._stuck = 0  # The last steps in a row that all members skipped.
    self._start = self._clock = self._reported = time.monotonic()
    self._speed = Speed(counts.step, self._batches, now=self._clock)

  def add(
      self,
      step: int,
      metrics: step_lib.Metrics,
      *,
      dropped: int | Array,
      state: suite.TrainState | None = None,
  ) -> None:
    """Queues the metrics of a segment, and reads those of the previous one.

    Args:
      step: The number of steps of the run at the end of the segment.
      metrics: The metrics of the segment.
      dropped: The number of non-finite or huge rows of text in the segment's
        block.
      state: The state at the end of the segment, for the mean thresholds of
        its members; None to leave them out.

    Raises:
      DataError, StuckError: as `flush`, for the previous segment.
    """
    self.flush()
    means = {} if state is None else self._mean_thresholds(state)
    self._pending = step, metrics, dropped, means

  def flush(self) -> None:
    """Waits for the last segment that was added, and reads its metrics.

    Raises:
      DataError: too many rows of the block are non-finite or huge.
      StuckError: all members that are not frozen skipped `MAX_STUCK` steps in a
        row, or all are frozen.
    """
    if self._pending is None:
      return
    step, *queued = self._pending
    self._pending = None
    metrics, dropped, means = jax.device_get(queued)
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
    self._write(self._record(metrics, means))
    self._check_block(int(dropped))
    self._check(metrics)
    self._update(metrics, means, now)

  def _check_block(self, dropped: int) -> None:
    """Raises DataError if too many rows of a block are non-finite or huge."""
    positions = self._batches * self._batch
    if dropped > max(_MAX_DROPPED, _MAX_DROPPED_SHARE * positions):
      raise errors.DataError(
          f'{dropped} of {positions} positions of a block have huge or'
          ' non-finite activations; check that the weights of the language'
          ' model are intact, or choose another --lm_dtype'
      )

  def _record(
      self, metrics: step_lib.Metrics, mean_thresholds: Mapping[str, np.ndarray]
  ) -> dict[str, Any]:
    """Returns a segment's line of metrics.

    Metrics are means over the segment; `dead_share`, counters and thresholds
    are those at its end.
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
    for name, means in mean_thresholds.items():
      groups[name]['threshold'] = means.tolist()
    return {
        **dataclasses.asdict(self.counts),
        'positions': self.counts.step * self._batch,
        # Lines of older versions have the factor here, and `sparsity` instead
        # of `sparsity_factor` (`metrics_file`).
        'learning_rate': (
            self._learning_rate * float(metrics.learning_rate[-1])
        ),
        'sparsity_factor': float(metrics.sparsity[-1]),
        'members': {group.name: suite.names(group) for group in self._groups},
        'groups': groups,
    }

  def _check(self, metrics: step_lib.Metrics) -> None:
    """Raises StuckError if no member can make further steps."""
    is_skipped, is_live = [], []
    for name, group in metrics.groups.items():
      counts = np.asarray(group['skipped'])  # [steps, members]
      previous = self._skipped.get(name)
      before = (0 * counts[0] if previous is None else previous)[None]
      is_skipped.append(np.diff(counts, axis=0, prepend=before) > 0)
      self._skipped[name] = counts[-1]
      frozen = np.asarray(group['frozen']) > 0
      is_live.append(~np.concatenate([self._frozen[name][None], frozen[:-1]]))
      self._note_frozen(name, frozen[-1])
    steps = np.concatenate(is_skipped, 1), np.concatenate(is_live, 1)
    start = self.counts.step - len(steps[0])
    for number, (skipped, live) in enumerate(zip(*steps, strict=True), start):
      self._stuck = self._stuck + 1 if skipped[live].all() else 0
      if self._stuck >= MAX_STUCK or not live.any():
        raise StuckError(
            f'step {self.counts.step}: all members skipped {MAX_STUCK} steps in'
            ' a row, because loss or gradients were not finite; lower'
            ' --optim.learning_rate',
            first=max(number + 1 - MAX_STUCK, 0),
        )

  def _note_frozen(self, name: str, frozen: np.ndarray) -> None:
    """Records the members of a group that are frozen, and logs new ones."""
    (group,) = [group for group in self._groups if group.name == name]
    new = frozen & ~self._frozen[name]
    self._frozen[name] = frozen
    for text in itertools.compress(suite.names(group), new):
      self.counts.frozen = (*self.counts.frozen, text)
      logging.warning(
          'step %d: %s is frozen, because its loss or gradients were not finite'
          ' in %d steps; the others continue',
          self.counts.step,
          text,
          MAX_STUCK,
      )

  def _update(
      self,
      metrics: step_lib.Metrics,
      means: Mapping[str, np.ndarray],
      now: float,
  ) -> None:
    """Reports the progress if a report is due."""
    step = self.counts.step
    steps_per_second, is_bound = self._speed.update(step, now)
    # Reports are rarer in a long run, so that its log stays short.
    wait = min(max((now - self._start) / 20, _SECONDS), _MAX_SECONDS)
    if now - self._reported < wait and step < self._total:
      return
    self._reported = now
    left = self._total - step
    self._on_progress(
        progress_lines.Progress(
            step=step,
            total_steps=self._total,
            groups=tuple(
                _group_progress(group, metrics.groups[group.name])
                for group in self._groups
            ),
            tokens_per_second=steps_per_second * self._batch,
            seconds_left=left / steps_per_second
            if steps_per_second
            else math.inf,
            is_bound=is_bound,
            notes=tuple(self._diagnoses(metrics, means)),
        )
    )
    self._means = means

  def _diagnoses(
      self, metrics: step_lib.Metrics, means: Mapping[str, np.ndarray]
  ) -> Iterator[str]:
    """Yields new diagnoses of members, each once."""
    if metrics.sparsity[-1] < 1:
      return
    for group in self._groups:
      values = metrics.groups[group.name]
      l0 = np.asarray(values['l0']).mean(0, np.float64)
      still = np.zeros(len(group.members), bool)
      if hasattr(group.sae.config, 'bandwidth') and group.name in self._means:
        still = self._means[group.name] == means[group.name]
      named = zip(suite.names(group), group.members, strict=True)
      for index, (name, member) in enumerate(named):
        for fault, text in diagnosis.diagnose(
            member,
            l0=float(l0[index]),
            dead_share=float(values['dead_share'][-1][index]),
            progress=self.counts.step / self._total,
            is_still=bool(still[index]),
        ):
          if (name, fault) not in self._diagnosed:
            self._diagnosed.add((name, fault))
            yield f'{name}: {text}'


def _group_progress(
    group: suite.Group, metrics: Mapping[str, Array | np.ndarray]
) -> progress_lines.GroupProgress:
  """Returns the progress of a group from its metrics, [steps, members] each."""

  live = np.asarray(metrics['frozen'])[-1] == 0

  def mean(name):
    means = np.asarray(metrics[name]).mean(0, np.float64)
    return tuple(means[live].tolist())

  targets = np.asarray([member.target_l0 for member in group.members])
  return progress_lines.GroupProgress(
      name=group.name,
      targets=tuple(targets[live].tolist()),
      l0=mean('l0'),
      fvu=mean('fvu'),
      dead_share=tuple(np.asarray(metrics['dead_share'])[-1][live].tolist()),
      loss=mean('loss'),
      frozen=int((~live).sum()),
  )
