"""Who is timed when: in turn, or one after another."""

from collections.abc import Callable, Mapping
import dataclasses
import statistics
import sys
import time

from experiments.benchmarking import resident
from jumprelu import errors


@dataclasses.dataclass(frozen=True)
class Plan:
  """How implementations take turns."""

  rounds: int
  # Steps a turn.
  steps: int
  # One after another, each the only one in the device's memory.
  alone: bool = False
  # What fails is left out, with a line that says so.
  skip_failing: bool = False


@dataclasses.dataclass
class Timed:
  """What was found of each implementation."""

  turns: dict[str, list[dict[str, float]]] = dataclasses.field(
      default_factory=dict
  )
  # Of ours.
  gradient_errors: dict[str, float] = dataclasses.field(default_factory=dict)


def measure(pythons: Mapping[str, str], job: resident.Job, plan: Plan) -> Timed:
  """Has every implementation take two turns a round."""
  found = Timed(turns={name: [] for name in pythons})
  with resident.all_of(pythons, job) as processes:
    if plan.alone:
      for name, process in processes.items():
        _prepare(found, plan, name, process)
        for _ in range(2 * plan.rounds):
          _turn(found, plan, name, process)
        _tell(found, name)
        _gradient_error(found, plan, name, process)
        process.close()
    else:
      _in_turn(found, plan, processes)
  return found


def _in_turn(
    found: Timed, plan: Plan, processes: Mapping[str, resident.Resident]
) -> None:
  for name, process in processes.items():
    _prepare(found, plan, name, process)
  for number in range(plan.rounds):
    for name in (*processes, *reversed(processes)):
      _turn(found, plan, name, processes[name])
    print(f'round {number + 1} of {plan.rounds}', file=sys.stderr)
  for name in processes:
    _tell(found, name)
  # Last: it takes memory of its own.
  for name, process in processes.items():
    _gradient_error(found, plan, name, process)


def _prepare(
    found: Timed, plan: Plan, name: str, process: resident.Resident
) -> None:
  start = time.perf_counter()
  _attempt(found, plan, name, process.prepare)
  seconds = time.perf_counter() - start
  print(f'{name}: prepared in {seconds:.0f} s', file=sys.stderr)


def _turn(
    found: Timed, plan: Plan, name: str, process: resident.Resident
) -> None:
  def take():
    found.turns[name].append(process.turn(plan.steps))

  _attempt(found, plan, name, take)


def _tell(found: Timed, name: str) -> None:
  """Says what was timed: the tables come when all is done, if they do."""
  if turns := found.turns.get(name):
    seconds = statistics.median(turn['wall'] for turn in turns)
    memory = turns[-1]['memory'] / 2**20
    print(f'{name}: {seconds:.4f} s a turn, {memory:.0f} MiB', file=sys.stderr)


def _gradient_error(
    found: Timed, plan: Plan, name: str, process: resident.Resident
) -> None:
  if not name.startswith('ours-') or name not in found.turns:
    return
  try:
    found.gradient_errors[name] = process.gradient_error()
  except errors.UserError as error:
    if not plan.skip_failing:
      raise
    # Its turns stand.
    print(f'without the gradients of {name}: {error}', file=sys.stderr)
    found.gradient_errors[name] = float('nan')


def _attempt(
    found: Timed, plan: Plan, name: str, call: Callable[[], None]
) -> None:
  """Calls, for an implementation that has not failed yet."""
  if name not in found.turns:
    return
  try:
    call()
  except errors.UserError as error:
    if not plan.skip_failing:
      raise
    print(f'without {name}: {error}', file=sys.stderr)
    del found.turns[name]
