"""A trace of some steps by JAX's profiler, for TensorBoard or Perfetto."""

from collections.abc import Callable
import os

from absl import logging
import jax

from jumprelu import processes


class Profile:
  """Traces whole segments of at least `steps` steps, once per start of a run.

  The trace begins with the second segment, because the first one includes
  compilation. It has the forward pass of a block if a block begins in it. Only
  process 0 is traced.
  """

  def __init__(self, directory: str | os.PathLike[str], steps: int):
    """Traces nothing if `steps` is 0."""
    self._directory = os.fspath(directory)
    self._steps = steps if processes.is_main() else 0
    self._segments = 0
    self._first: int | None = None  # The step at which the trace began.

  def begin_segment(self, step: int) -> None:
    """Starts the trace if it is due; called before each segment."""
    self._segments += 1
    if self._steps and self._segments == 2:
      jax.profiler.start_trace(self._directory)
      self._first = step

  def end_segment(self, step: int, *, wait: Callable[[], None]) -> None:
    """Ends the trace if it is complete; called after each segment.

    Args:
      step: The step at the end of the segment.
      wait: Waits until the devices have finished the segment.
    """
    if self._first is not None and step - self._first >= self._steps:
      wait()
      self._stop()

  def close(self) -> None:
    """Ends a trace that is incomplete because the run has ended."""
    if self._first is not None:
      self._stop()
    elif self._steps:
      logging.warning(
          '--profile_steps: no trace, because the run has ended in its first'
          ' segment'
      )

  def _stop(self) -> None:
    jax.profiler.stop_trace()
    self._first, self._steps = None, 0
