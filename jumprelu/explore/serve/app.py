"""The addresses of the page and of the live model, as an ASGI application."""

import asyncio
from collections.abc import Mapping
import json
import sys
import traceback
from typing import Any, NamedTuple

from jumprelu import errors, extras
from jumprelu.explore import container, html_page, page_data, write
from jumprelu.explore.serve import fields, guard, live, steering, worker

with extras.imports():
  from starlette import applications, exceptions, requests, responses, routing

# Seconds within which the body of a request must arrive.
_BODY_SECONDS = 10

# The fields of POST /api/NAME, where NAME is a method of `live.Live`.
_ENDPOINTS: Mapping[str, Mapping[str, fields.Check]] = {
    'run': {
        'text': fields.text,
        'members': fields.members,
        'k': fields.whole(8, 1, live.MAX_K),
    },
    'rank': {
        'text': fields.text,
        'member': fields.member,
        'k': fields.whole(50, 1, 1000),
        'by': fields.choice('largest', 'mean', 'count'),
    },
    'logits': {
        'text': fields.text,
        'member': fields.member,
        'keep_error': fields.flag(False),
    },
    'attribution': {
        'text': fields.text,
        'member': fields.member,
        'target': fields.token,
    },
    'generate': {
        'text': fields.text,
        'tokens': fields.whole(20, 1, live.NEW_TOKENS),
        'temperature': fields.number(0.0, 0.0, 10.0),
        'seed': fields.whole(0, 0, 2**31 - 1),
        'member': fields.any_member,
    },
    'steer': {
        'text': fields.text,
        'member': fields.member,
        'edits': fields.edits(steering.MAX_EDITS),
        'tokens': fields.whole(20, 1, live.NEW_TOKENS),
        'temperature': fields.number(0.0, 0.0, 10.0),
        'seed': fields.whole(0, 0, 2**31 - 1),
    },
    'activations': {'text': fields.text, 'member': fields.member},
}


class Page(NamedTuple):
  """A page in memory.

  Attributes:
    html: The page.
    files: The files of its containers, by their paths below data/.
    policy: The content security policy.
  """

  html: bytes
  files: Mapping[str, bytes]
  policy: str


def make_page(page: page_data.PageData, *, max_tokens: int) -> Page:
  """Returns the page of a live model.

  Args:
    page: The data of the page.
    max_tokens: The largest number of tokens of a text.
  """
  limits = {
      'max_tokens': max_tokens,
      'max_new_tokens': live.NEW_TOKENS,
      'max_edits': steering.MAX_EDITS,
  }
  index = page.index | {'blobs': 'files', 'live': limits}
  text = html_page.head(index, policy_text=None) + html_page.end()
  files = {
      f'{name}.js': html_page.blob_script(name, container.encode(part)).encode()
      for name, part in page.containers()
  }
  policy = html_page.policy(files="'self'", connect="'self'")
  return Page(text.encode(), files, f"{policy}; frame-ancestors 'none'")


def make(page: Page, jobs: worker.Worker, hosts: guard.Hosts) -> guard.Guard:
  """Returns the application of a page and its live model."""

  async def index(request):
    del request
    return responses.HTMLResponse(page.html)

  async def data(request):
    body = page.files.get(request.path_params['name'])
    if body is None:
      raise exceptions.HTTPException(404)
    return responses.Response(body, media_type='text/javascript')

  async def status(request):
    del request
    return responses.JSONResponse(jobs.status)

  routes = [
      routing.Route('/', index),
      routing.Route(f'/{write.DATA}/{{name:path}}', data),
      routing.Route('/api/status', status),
      *(
          routing.Route(f'/api/{name}', _endpoint(name, jobs), methods=['POST'])
          for name in _ENDPOINTS
      ),
  ]
  handlers: dict[Any, Any] = {
      fields.Refused: _on_refused,
      errors.UserError: _on_user_error,
      exceptions.HTTPException: _on_http,
      Exception: _on_defect,
  }
  app = applications.Starlette(routes=routes, exception_handlers=handlers)
  return guard.Guard(app, hosts, policy=page.policy)


def _endpoint(name: str, jobs: worker.Worker) -> Any:
  async def answer(request):
    values = fields.read(_ENDPOINTS[name], fields.parse(await _body(request)))

    def job(model):
      result = getattr(model, name)(**values)
      return json.dumps(result, allow_nan=False).encode()

    body = await asyncio.wrap_future(jobs.submit(job))
    return responses.Response(body, media_type='application/json')

  return answer


async def _body(request: Any) -> bytes:
  """Returns the body of a request.

  Raises:
    Refused: It is too long, or arrives too slowly.
  """
  limit = fields.MAX_BYTES
  too_long = fields.Refused(413, f'the body may have {limit} bytes; shorten it')
  declared = request.headers.get('content-length', '')
  if declared.isdecimal() and int(declared) > limit:
    raise too_long
  body = bytearray()
  try:
    async with asyncio.timeout(_BODY_SECONDS):
      async for part in request.stream():
        body += part
        if len(body) > limit:
          raise too_long
  except (TimeoutError, requests.ClientDisconnect) as error:
    raise fields.Refused(
        400, 'the body is incomplete; send it again'
    ) from error
  return bytes(body)


def _error(status: int, message: str, headers: Any = None) -> Any:
  line = ' '.join(message.split())
  return responses.JSONResponse({'error': line}, status, headers)


async def _on_refused(request: Any, error: fields.Refused) -> Any:
  del request
  wait = {'retry-after': '1'} if error.status in (429, 503) else None
  return _error(error.status, str(error), wait)


async def _on_user_error(request: Any, error: errors.UserError) -> Any:
  del request
  return _error(400, str(error))


async def _on_http(request: Any, error: Any) -> Any:
  path = fields.shown(request.url.path)
  return _error(error.status_code, f'{path}: {error.detail}', error.headers)


async def _on_defect(request: Any, error: Exception) -> Any:
  del request
  traceback.print_exception(error, file=sys.stderr)
  return _error(500, 'internal error; the terminal shows it')
