"""Refuses requests of other sites, and adds headers to every response.

A page of another site can send requests to a server on this computer, and by
DNS rebinding also read the answers. It cannot choose the headers Host and
Origin, which therefore must be the server's own.
"""

import dataclasses
import ipaddress
import json
import re
import socket
from typing import Any

_HOST = re.compile(r'([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?')
_DEFAULT_PORT = 80


@dataclasses.dataclass(frozen=True)
class Hosts:
  """The values of the header Host that the server answers.

  Attributes:
    names: Names and addresses in lower case.
    port: The port.
    any_address: Whether every IP address is allowed, because the server listens
      on all of them. DNS rebinding needs a name.
  """

  names: frozenset[str]
  port: int
  any_address: bool = False

  def allow(self, value: str) -> bool:
    """Returns whether the server is meant by a value of the header Host."""
    match = _HOST.fullmatch(value.lower())
    if not match or int(match[2] or _DEFAULT_PORT) != self.port:
      return False
    name = match[1].strip('[]')
    return name in self.names or (self.any_address and _is_address(name))


def hosts(host: str, port: int) -> Hosts:
  """Returns the hosts of a server that listens on `host`."""
  names = {host.lower(), 'localhost'}
  if not _is_address(host) or not ipaddress.ip_address(host).is_unspecified:
    if is_loopback(host):
      names |= {'127.0.0.1', '::1'}
    return Hosts(frozenset(names), port)
  names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
  return Hosts(frozenset(names), port, any_address=True)


def is_loopback(host: str) -> bool:
  """Returns whether only this computer reaches a server on `host`."""
  if _is_address(host):
    return ipaddress.ip_address(host).is_loopback
  return host.lower() == 'localhost'


class Guard:
  """An ASGI application around another one."""

  def __init__(self, app: Any, allowed: Hosts, *, policy: str):
    """Wraps an application.

    Args:
      app: The application that gets the allowed requests.
      allowed: The hosts.
      policy: The content security policy of every response.
    """
    self._app = app
    self._hosts = allowed
    headers = {
        'content-security-policy': policy,
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'cache-control': 'no-store',
        # A script element of another site must not read the data.
        'cross-origin-resource-policy': 'same-origin',
        'cross-origin-opener-policy': 'same-origin',
        'x-frame-options': 'DENY',
    }
    self._headers = [(k.encode(), v.encode()) for k, v in headers.items()]

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    """Answers a request (ASGI)."""
    if scope['type'] == 'websocket':
      await send({'type': 'websocket.close', 'code': 1008})
      return
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return

    async def send_with_headers(message):
      if message['type'] == 'http.response.start':
        message['headers'] = [*message.get('headers', ()), *self._headers]
      await send(message)

    problem = self._problem(scope['headers'])
    if problem is None:
      await self._app(scope, receive, send_with_headers)
    else:
      await _refuse(problem, send_with_headers)

  def _problem(self, headers: list[tuple[bytes, bytes]]) -> str | None:
    """Returns why a request is refused, or None."""
    host, origin = (
        [value.decode('latin-1') for key, value in headers if key == name]
        for name in (b'host', b'origin')
    )
    if len(host) != 1 or not self._hosts.allow(host[0]):
      address = f'http://localhost:{self._hosts.port}'
      return f'Host is not this server; open {address}'
    if origin and [x.lower() for x in origin] != [f'http://{host[0]}'.lower()]:
      return 'Origin is another site; only the page of this server may ask'
    return None


async def _refuse(problem: str, send: Any) -> None:
  body = json.dumps({'error': problem}).encode()
  headers = [
      (b'content-type', b'application/json'),
      (b'content-length', str(len(body)).encode()),
  ]
  await send({'type': 'http.response.start', 'status': 403, 'headers': headers})
  await send({'type': 'http.response.body', 'body': body})


def _is_address(name: str) -> bool:
  try:
    ipaddress.ip_address(name)
  except ValueError:
    return False
  return True
