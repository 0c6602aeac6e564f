"""Language models that a server offers by the API of OpenAI.

Servers such as vLLM, llama.cpp and Ollama have the same API. The key is read
from the environment, and is sent to the server alone: it is in no file and no
message, and redirects are refused because they could send it elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
import http.client
import json
import time
from typing import Any
import urllib.error
import urllib.parse
import urllib.request

from jumprelu import errors
from jumprelu.explain import llm, prompts
from jumprelu.features import tables

KEY_VARIABLE = 'JUMPRELU_LLM_KEY'
_RETRIED = (408, 409, 429, 500, 502, 503, 504)
_WAITS = (1, 2, 4, 8)
_LONGEST_WAIT = 60
_MAX_BYTES = 1 << 22


class _NoRedirects(urllib.request.HTTPRedirectHandler):

  def redirect_request(self, req, *args, **kwargs):
    return None


class RemoteLm:
  """A model of a server.

  Attributes:
    name: The name of the model.
  """

  def __init__(
      self,
      url: str,
      *,
      name: str,
      key: str | None = None,
      tokens: int = 1024,
      parallel: int = 4,
      timeout: float = 120,
      sleep: Callable[[float], Any] = time.sleep,
  ):
    """Initialises the model; nothing is sent.

    Args:
      url: The address of the API, such as http://localhost:8000/v1.
      name: The name of the model.
      key: The key; None if the server needs none.
      tokens: The largest number of tokens of an answer.
      parallel: The number of requests at a time.
      timeout: Seconds until a request is given up.
      sleep: Waits for some seconds.

    Raises:
      UserError: The address is not one of http or https, or contains a key.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ('http', 'https') or not parts.hostname:
      raise errors.UserError(
          '--llm_url: not an address; write http://HOST:PORT/v1'
      )
    if '@' in parts.netloc or parts.query or parts.fragment:
      raise errors.UserError(
          f'--llm_url: has more than a host and a path; pass a key as'
          f' ${KEY_VARIABLE}'
      )
    self.name = name
    self._url = f'{url.rstrip("/")}/chat/completions'
    self._key = key
    self._tokens = tokens
    self._parallel = parallel
    self._timeout = timeout
    self._sleep = sleep
    self._open = urllib.request.build_opener(_NoRedirects).open

  def answer(self, requests: Sequence[prompts.Request]) -> Iterator[llm.Answer]:
    """Yields the answers in order; several requests run at a time.

    Raises:
      UserError: The server refuses, or does not answer after several attempts.
    """
    return tables.in_order(self._one, requests, threads=self._parallel)

  def _one(self, request: prompts.Request) -> llm.Answer:
    body = {
        'model': self.name,
        'messages': [{'role': 'user', 'content': request.prompt}],
        'temperature': 0,
        'max_tokens': self._tokens,
    }
    text = _text_of(self._post(body))
    if text is None or not text.strip():
      # A model that used all tokens to reason has an empty text.
      return llm.Answer(request.id, '', 'the server sent no text')
    return llm.Answer(request.id, self._redacted(text))

  def _post(self, body: dict[str, Any]) -> bytes:
    """Returns the response to a request, which is repeated if it may help."""
    headers = {'Content-Type': 'application/json'}
    if self._key:
      headers['Authorization'] = f'Bearer {self._key}'
    data = json.dumps(body).encode()
    problem = ''
    for wait in (*_WAITS, None):
      call = urllib.request.Request(self._url, data, headers)
      try:
        with self._open(call, timeout=self._timeout) as response:
          return response.read(_MAX_BYTES)
      except urllib.error.HTTPError as error:
        detail = error.read(300).decode('utf-8', 'replace')
        problem = f'status {error.code}: {detail}'
        if error.code not in _RETRIED:
          break
        wait = _wait(error.headers.get('Retry-After'), wait)
      except (OSError, http.client.HTTPException) as error:
        problem = str(getattr(error, 'reason', error)) or type(error).__name__
      if wait is not None:
        self._sleep(wait)
    problem = ' '.join(self._redacted(problem).split())
    raise errors.UserError(
        f'{self._url}: {problem}; repeat the command to resume'
    )

  def _redacted(self, text: str) -> str:
    return text.replace(self._key, '[key]') if self._key else text


def _wait(after: str | None, wait: int | None) -> int | None:
  """Returns the seconds to wait; the server's wish if it is short enough."""
  if wait is None or not after or not after.isdecimal():
    return wait
  return min(int(after), _LONGEST_WAIT)


def _text_of(response: bytes) -> str | None:
  """Returns the text of a response; None if it has none."""
  try:
    text = json.loads(response)['choices'][0]['message']['content']
  except (ValueError, LookupError, TypeError):
    return None
  return text if isinstance(text, str) else None
