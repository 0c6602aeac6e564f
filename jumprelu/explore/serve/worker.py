"""The thread that prepares the live model and then runs one job at a time."""

from collections.abc import Callable
from concurrent import futures
import contextlib
import queue
import threading
from typing import Any

from jumprelu.explore.serve import fields

Report = Callable[[str], None]
Job = Callable[[Any], Any]


class Worker:
  """Runs jobs on a live model in a thread; a second job is refused.

  The thread is a daemon, because a job that runs when the server stops cannot
  be interrupted (`server.run`).

  Attributes:
    failure: The error that ended the preparation; None if there is none.
  """

  def __init__(
      self,
      prepare: Callable[[Report], Any],
      *,
      context: contextlib.AbstractContextManager[Any] | None = None,
  ):
    """Makes a worker, which `start` starts.

    Args:
      prepare: Returns the live model; it is called with a function that reports
        the start of a phase.
      context: Entered by the thread, for settings of JAX, which are those of a
        thread.
    """
    self._prepare = prepare
    self._context = context or contextlib.nullcontext()
    self._message = 'starting'
    self._ready = False
    self._busy = threading.Lock()
    self._jobs: queue.SimpleQueue[tuple[futures.Future, Job]] = (
        queue.SimpleQueue()
    )
    self.failure: BaseException | None = None

  def start(self, *, on_failure: Callable[[], None] = lambda: None) -> None:
    """Starts the preparation.

    Args:
      on_failure: Called in the thread if the preparation raises an error.
    """
    threading.Thread(target=self._run, args=(on_failure,), daemon=True).start()

  @property
  def status(self) -> dict[str, Any]:
    """The answer to /api/status."""
    return {
        'ready': self._ready,
        'message': self._message,
        'busy': self._busy.locked(),
    }

  @property
  def is_working(self) -> bool:
    """Whether the thread prepares the model or runs a job."""
    return self.failure is None and (not self._ready or self._busy.locked())

  def submit(self, job: Job) -> futures.Future:
    """Returns the future of a job, which is called with the live model.

    Raises:
      Refused: The model is not ready, or another job runs.
    """
    if not self._ready:
      raise fields.Refused(503, f'not ready: {self._message}')
    if not self._busy.acquire(blocking=False):
      raise fields.Refused(429, 'busy with another request; try again')
    future: futures.Future = futures.Future()
    self._jobs.put((future, job))
    return future

  def _run(self, on_failure: Callable[[], None]) -> None:
    with self._context:
      self._work(on_failure)

  def _work(self, on_failure: Callable[[], None]) -> None:
    try:
      live = self._prepare(self._report)
    except BaseException as error:  # Raised again in the main thread.
      self._message = 'failed; see the terminal'
      self.failure = error
      on_failure()
      return
    # Printed last, because readers of the line send requests at once.
    self._ready = True
    self._report('ready')
    while True:
      self._finish(*self._jobs.get(), live)

  def _finish(self, future: futures.Future, job: Job, live: Any) -> None:
    """Runs a job and completes its future."""
    # The client may have left before the job was started.
    wanted = future.set_running_or_notify_cancel()
    result = error = None
    try:
      result = job(live) if wanted else None
    except Exception as raised:
      error = raised
    # Before the answer, so that the client's next request is not refused.
    self._busy.release()
    if not wanted:
      return
    if error is None:
      future.set_result(result)
    else:
      future.set_exception(error)

  def _report(self, message: str) -> None:
    self._message = message
    print(message, flush=True)
