"""The socket of the server, its signals and its end."""

import contextlib
import errno
import os
import signal
import socket
import sys

from jumprelu import errors, extras
from jumprelu.explore.serve import app as app_lib
from jumprelu.explore.serve import guard, worker

with extras.imports():
  import uvicorn

# Seconds that open requests have when the server stops.
_GRACE_SECONDS = 1
# Connections and requests at the same time, of one person's browser.
_CONNECTIONS = 64


def bind(host: str, port: int) -> socket.socket:
  """Returns a socket that listens; port 0 means any that is not in use.

  Raises:
    UserError: The port is in use or forbidden, or the host is unknown.
  """
  try:
    info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(info[0], info[1])
  except OSError as error:
    raise errors.UserError(
        f'--host={host}: {error.strerror}; use 127.0.0.1'
    ) from error
  try:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(info[4])
    listener.listen(_CONNECTIONS)
  except OSError as error:
    listener.close()
    if error.errno == errno.EADDRNOTAVAIL:
      raise errors.UserError(
          f'--host={host}: not an address of this computer; use 127.0.0.1'
      ) from error
    raise errors.UserError(
        f'--port={port}: {error.strerror}; choose another, or --port=0 for any'
        ' that is not in use'
    ) from error
  return listener


def address(host: str, port: int) -> str:
  """Returns the address to open in a browser."""
  shown = f'[{host}]' if ':' in host else host
  return f'http://{shown}:{port}/'


class _Server(uvicorn.Server):
  """A server that stops at a signal and then returns."""

  @contextlib.contextmanager
  def capture_signals(self):
    """Replaces uvicorn's, which raises the signals again at the end."""
    # The last is sent when the terminal is closed.
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {s: signal.signal(s, self.handle_exit) for s in signals}
    try:
      yield
    finally:
      for number, handler in previous.items():
        signal.signal(number, handler)


def run(
    page: app_lib.Page,
    jobs: worker.Worker,
    listener: socket.socket,
    *,
    host: str,
) -> None:
  """Serves a page and its live model until SIGINT or SIGTERM.

  A job that still runs at the end is abandoned with the process, because a
  program on the device cannot be interrupted; it has written nothing.

  Args:
    page: The page.
    jobs: The worker, not yet started.
    listener: The socket (`bind`).
    host: The host of the socket.

  Raises:
    BaseException: The preparation of the live model failed.
  """
  port = listener.getsockname()[1]
  application = app_lib.make(page, jobs, guard.hosts(host, port))
  config = uvicorn.Config(
      application,
      http='h11',
      ws='none',
      loop='asyncio',
      lifespan='off',
      log_config=None,
      log_level='critical',
      access_log=False,
      proxy_headers=False,
      server_header=False,
      limit_concurrency=_CONNECTIONS,
      timeout_graceful_shutdown=_GRACE_SECONDS,
  )
  # Imports its modules now, and not while the worker imports others.
  config.load()
  server = _Server(config)

  def stop():
    server.should_exit = True

  print(f'{address(host, port)}: open it in a browser; Ctrl-C stops the server')
  if not guard.is_loopback(host):
    print('Warning: everyone who can reach this computer can use the server.')
  sys.stdout.flush()
  jobs.start(on_failure=stop)
  server.run([listener])
  if jobs.failure is not None:
    raise jobs.failure
  print('stopped', flush=True)
  if jobs.is_working:
    sys.stderr.flush()
    os._exit(0)
