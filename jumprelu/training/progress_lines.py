"""The progress of a run as lines of text: a headline, and a line per group."""

from collections.abc import Callable, Sequence
import dataclasses
import math
import sys

from jumprelu import processes

# The largest number of columns of a line, if ranges fit into it.
_COLUMNS = 120


@dataclasses.dataclass(frozen=True)
class GroupProgress:
  """The metrics of a group's members: means over a segment, by member.

  Those of frozen members are left out.
  """

  name: str
  targets: tuple[float, ...]  # 0 for a member without a target L0.
  l0: tuple[float, ...]
  fvu: tuple[float, ...]
  dead_share: tuple[float, ...]  # At the end of the segment.
  loss: tuple[float, ...]
  frozen: int = 0  # The number of frozen members.

  def line(self) -> str:
    """Returns the metrics as one line: of each member, or else their ranges."""
    line = self._line(_each)
    return line if len(line) <= _COLUMNS else self._line(_range)

  def _line(self, join: Callable[[Sequence[float], str], str]) -> str:
    if not self.l0:
      return f'  {self.name}: {self.frozen} frozen'
    parts = [f'L0 {join(self.l0, ".1f")}']
    if any(self.targets):
      misses = [
          abs(l0 / target - 1)
          for l0, target in zip(self.l0, self.targets, strict=True)
          if target
      ]
      parts[
          0
      ] += f' (target {join(self.targets, "g")}, off {_largest(misses):.0%})'
    parts += [
        f'FVU {join(self.fvu, ".3f")}',
        f'dead {join(self.dead_share, ".0%")}',
        f'loss {join(self.loss, ".3g")}',
    ]
    if self.frozen:
      parts.append(f'{self.frozen} frozen')
    return f'  {self.name}: ' + ' | '.join(parts)


@dataclasses.dataclass(frozen=True)
class Progress:
  """The progress of a run at the end of a segment."""

  step: int
  total_steps: int
  groups: tuple[GroupProgress, ...]
  tokens_per_second: float
  seconds_left: float
  # Whether the rate is a lower bound, because it includes compilation. This is
  # so during the first block of a start.
  is_bound: bool = False
  # New diagnoses of members.
  notes: tuple[str, ...] = ()

  def headline(self) -> str:
    """Returns step, rate and time left as one line."""
    if not math.isfinite(self.seconds_left):
      eta = 'unknown'
    else:
      left = round(self.seconds_left)
      eta = f'{left // 3600}:{left // 60 % 60:02}:{left % 60:02}'
    bound = self.is_bound and self.step < self.total_steps
    return (
        f'step {self.step}/{self.total_steps}'
        f' {100 * self.step / self.total_steps:.1f}%'
        f' | {"above " if bound else ""}{self.tokens_per_second:,.0f} tokens/s'
        f' | ETA {"below " if bound else ""}{eta}'
    )

  def lines(self) -> str:
    """Returns the headline, and an indented line for each group and note."""
    notes = (f'  note: {note}' for note in self.notes)
    groups = (group.line() for group in self.groups)
    return '\n'.join([self.headline(), *groups, *notes])


def print_progress(progress: Progress) -> None:
  """Prints the progress to stderr; only process 0 prints."""
  print_phase(progress.lines())


def print_phase(text: str) -> None:
  """Prints a line about the start of a run to stderr; only process 0 prints."""
  if processes.is_main():
    print(text, file=sys.stderr, flush=True)


def silent(_: object) -> None:
  """Prints nothing."""


def _each(values: Sequence[float], spec: str) -> str:
  return ' '.join(format(value, spec) for value in values)


def _range(values: Sequence[float], spec: str) -> str:
  """Returns 'smallest-largest' of the finite values, or 'nan'."""
  finite = [value for value in values if math.isfinite(value)]
  if not finite:
    return 'nan'
  low, high = format(min(finite), spec), format(max(finite), spec)
  return low if low == high else f'{low}-{high}'


def _largest(values: Sequence[float]) -> float:
  """Returns the largest value, or NaN if a value is NaN."""
  return math.nan if any(map(math.isnan, values)) else max(values)
