"""Measures the requests of a server of `jumprelu explore --serve`.

  python -m experiments.benchmarking.serve --release=jumprelu_demo/release

starts the command on a port that is not in use, waits until every program is
compiled, and prints the median and the 95th percentile of the time of each kind
of request, over the connection and with the answer parsed. Texts have as many
tokens as --tokens names, BOS included, and each is different.
"""

import http.client
import json
import pathlib
import re
import subprocess
import sys
import time
from typing import NamedTuple

from absl import flags
import numpy as np

from jumprelu import errors
from jumprelu.data import tokenizer as tokenizer_lib
from jumprelu.lm import source
from jumprelu.release import formats
from jumprelu.run import main as main_lib

# Requests of a kind that are not measured.
_WARM_UP = 3


class Times(NamedTuple):
  """The time of requests of a kind, in milliseconds.

  Attributes:
    name: The kind of request.
    median: The median.
    p95: The 95th percentile.
    largest: The largest.
  """

  name: str
  median: float
  p95: float
  largest: float


class Server:
  """The command in a process of its own, from a context."""

  def __init__(self, release: str, *flags_of_command: str):
    self._argv = [
        sys.executable,
        '-m',
        'jumprelu.run.explore',
        f'--release={release}',
        '--serve',
        '--port=0',
        *flags_of_command,
    ]

  def __enter__(self) -> 'Server':
    start = time.monotonic()
    self._process = subprocess.Popen(
        self._argv, stdout=subprocess.PIPE, text=True
    )
    assert self._process.stdout is not None
    address = ''
    for line in self._process.stdout:
      match = re.search(r'http://([^/]+)/: open it', line)
      address = match[1] if match else address
      if line == 'ready\n':
        self.start_seconds = time.monotonic() - start
        self._connection = http.client.HTTPConnection(address)
        return self
    raise errors.UserError(f'{" ".join(self._argv)}: the server has ended')

  def __exit__(self, *_: object) -> None:
    self._process.terminate()
    self._process.wait()

  def post(self, name: str, body: dict) -> dict:
    """Returns the answer to a request."""
    self._connection.request('POST', f'/api/{name}', json.dumps(body))
    response = self._connection.getresponse()
    answer = json.loads(response.read())
    if response.status != http.client.OK:
      raise errors.UserError(f'/api/{name}: {answer["error"]}')
    return answer


def texts(
    tokenizer: tokenizer_lib.Tokenizer, count: int, *, tokens: int
) -> list[str]:
  """Returns texts of this package's code with a number of tokens and BOS."""
  ids = []
  for path in sorted(pathlib.Path(source.__file__).parent.glob('*.py')):
    ids += tokenizer.encode(path.read_text('utf-8'))
  rng = np.random.default_rng(0)
  made = []
  while len(made) < count:
    start = int(rng.integers(len(ids) - tokens))
    text = tokenizer.decode(ids[start : start + tokens - 1])
    # A text that starts within a word may have other tokens by itself.
    if len(tokenizer.encode(text)) == tokens - 1:
      made.append(text)
  return made


def measure(
    server: Server, name: str, bodies: list[dict], *, warm_up: int = _WARM_UP
) -> Times:
  """Returns the times of requests; the first `warm_up` are not counted."""
  seconds = []
  for body in bodies:
    start = time.perf_counter()
    server.post(name, body)
    seconds.append(time.perf_counter() - start)
  times = 1e3 * np.asarray(seconds[warm_up:])
  median, p95 = np.percentile(times, [50, 95])
  return Times(name, float(median), float(p95), float(times.max()))


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  flags.DEFINE_string(
      'release', 'jumprelu_demo/release', 'Release.', flag_values=flag_values
  )
  flags.DEFINE_string(
      'features', None, 'As for the command.', flag_values=flag_values
  )
  flags.DEFINE_integer(
      'tokens', 64, 'Tokens of a text.', 2, 256, flag_values=flag_values
  )
  flags.DEFINE_integer(
      'requests', 50, 'Requests of a kind.', 1, flag_values=flag_values
  )


def run(flag_values: flags.FlagValues) -> int:
  """Prints a line for each kind of request."""
  release, tokens = flag_values.release, flag_values.tokens
  released = formats.find(release)
  model = source.find(formats.model_of(released))
  made = texts(
      tokenizer_lib.Tokenizer(model.tokenizer_path),
      flag_values.requests + _WARM_UP,
      tokens=tokens,
  )
  member = next(iter(released))
  kinds = {
      'run': {},
      'rank': {'member': member},
      'activations': {'member': member},
      'logits': {'member': member},
      'attribution': {'member': member},
      'generate': {'member': member, 'tokens': 20},
  }
  options = []
  if flag_values.features:
    options = [f'--features={flag_values.features}']
  with Server(release, *options) as server:
    print(f'{len(released)} members, {tokens} tokens')
    print(f'ready after {server.start_seconds:.0f} s')
    print('request      median ms  95 % ms  largest ms')
    for name, fields in kinds.items():
      bodies = [{'text': text} | fields for text in made]
      times = measure(server, name, bodies)
      print(
          f'{name:<12} {times.median:9.1f} {times.p95:8.1f}'
          f' {times.largest:11.1f}'
      )
  return 0


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.benchmarking.serve',
          sys.argv[1:],
      )
  )
