"""Runs the trials: alternately, or of one implementation after another."""

from collections.abc import Callable, Mapping
import dataclasses
import statistics
import sys
import time

from experiments.benchmarking import resident
from jumprelu import errors


@dataclasses.dataclass(frozen=True)
class Plan:
  """The number and the order of trials."""

  rounds: int
  # Steps of a trial.
  steps: int
  # Whether only one implementation at a time is in the device's memory.
  alone: bool = False
  # Whether an implementation that fails is left out, with a message.
  skip_failing: bool = False


@dataclasses.dataclass
class Timed:
  """The results of each implementation."""

  trials: dict[str, list[dict[str, float]]] = dataclasses.field(
      default_factory=dict
  )
  # Only of our backends.
  gradient_errors: dict[str, float] = dataclasses.field(default_factory=dict)


def measure(pythons: Mapping[str, str], job: resident.Job, plan: Plan) -> Timed:
  """Returns the results of all implementations: two trials in each round."""
  results = Timed(trials={name: [] for name in pythons})
  with resident.all_of(pythons, job) as processes:
    if plan.alone:
      for name, process in processes.items():
        _prepare(results, plan, name, process)
        for _ in range(2 * plan.rounds):
          _run_trial(results, plan, name, process)
        _print_time(results, name)
        _gradient_error(results, plan, name, process)
        process.close()
    else:
      _alternate(results, plan, processes)
  return results


def _alternate(
    results: Timed, plan: Plan, processes: Mapping[str, resident.Resident]
) -> None:
  for name, process in processes.items():
    _prepare(results, plan, name, process)
  for number in range(plan.rounds):
    for name in (*processes, *reversed(processes)):
      _run_trial(results, plan, name, processes[name])
    print(f'round {number + 1} of {plan.rounds}', file=sys.stderr)
  for name in processes:
    _print_time(results, name)
  # At the end, because the comparison of gradients adds to the peak memory.
  for name, process in processes.items():
    _gradient_error(results, plan, name, process)


def _prepare(
    results: Timed, plan: Plan, name: str, process: resident.Resident
) -> None:
  start = time.perf_counter()
  _attempt(results, plan, name, process.prepare)
  seconds = time.perf_counter() - start
  print(f'{name}: prepared in {seconds:.0f} s', file=sys.stderr)


def _run_trial(
    results: Timed, plan: Plan, name: str, process: resident.Resident
) -> None:
  def add_trial():
    results.trials[name].append(process.trial(plan.steps))

  _attempt(results, plan, name, add_trial)


def _print_time(results: Timed, name: str) -> None:
  """Prints the time at once, because a later failure may prevent the table."""
  if trials := results.trials.get(name):
    seconds = statistics.median(trial['wall'] for trial in trials)
    memory = trials[-1]['memory'] / 2**20
    print(
        f'{name}: {seconds:.4f} s per trial, {memory:.0f} MiB', file=sys.stderr
    )


def _gradient_error(
    results: Timed, plan: Plan, name: str, process: resident.Resident
) -> None:
  if not name.startswith('ours-') or name not in results.trials:
    return
  try:
    results.gradient_errors[name] = process.gradient_error()
  except errors.UserError as error:
    if not plan.skip_failing:
      raise
    # Unlike in `_attempt`, the implementation's trials are kept.
    print(f'the gradients of {name} are left out: {error}', file=sys.stderr)
    results.gradient_errors[name] = float('nan')


def _attempt(
    results: Timed, plan: Plan, name: str, call: Callable[[], None]
) -> None:
  """Calls `call`, unless the implementation has already failed."""
  if name not in results.trials:
    return
  try:
    call()
  except errors.UserError as error:
    if not plan.skip_failing:
      raise
    print(f'{name} is left out: {error}', file=sys.stderr)
    del results.trials[name]
