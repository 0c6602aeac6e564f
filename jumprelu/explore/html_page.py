"""The page as HTML, with a content security policy by the script's hashes."""

import base64
from collections.abc import Mapping
import hashlib
import html
import importlib.resources
import json
from typing import Any

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{policy}<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<noscript>This page needs JavaScript, which it contains itself.</noscript>
<div id="app"></div>
<script type="application/json" id="jumprelu-index">{index}</script>
"""
_END = '<script>{script}</script>\n</body>\n</html>\n'


def static(name: str) -> str:
  """Returns a file of the page's bundle: app.js or app.css."""
  folder = importlib.resources.files('jumprelu.explore') / 'static'
  return (folder / name).read_text('utf-8')


def policy(*, files: str = '', connect: str = "'none'") -> str:
  """Returns the content security policy of the page.

  Args:
    files: The sources of scripts besides the page's own, for example "'self'".
    connect: The sources that the script may request.
  """
  script, style = (_hash(static(name)) for name in ('app.js', 'app.css'))
  sources = ' '.join(filter(None, [script, files]))
  return (
      f"default-src 'none'; script-src {sources}; style-src {style};"
      f" img-src data:; connect-src {connect}; base-uri 'none'; form-action"
      " 'none'"
  )


def head(index: Mapping[str, Any], *, policy_text: str | None) -> str:
  """Returns the page up to the blobs.

  Args:
    index: The index of the page.
    policy_text: The policy; None if the server sends it as a header.
  """
  # In a script element only "<" can end the element or open a comment.
  text = json.dumps(index, allow_nan=False, separators=(',', ':'))
  tag = ''
  if policy_text is not None:
    quoted = html.escape(policy_text)
    tag = f'<meta http-equiv="Content-Security-Policy" content="{quoted}">\n'
  return _TEMPLATE.format(
      policy=tag,
      title=html.escape(f'{index["title"]} - jumprelu'),
      style=static('app.css'),
      index=text.replace('<', '\\u003c'),
  )


def blob_element(name: str, encoded: str) -> str:
  """Returns the element that holds an encoded container."""
  return f'<script type="text/plain" data-blob="{name}">{encoded}</script>\n'


def blob_script(name: str, encoded: str) -> str:
  """Returns the script file that hands an encoded container to the page."""
  return f'__jumprelu_blob("{name}","{encoded}");\n'


def end() -> str:
  """Returns the page after the blobs: its script."""
  return _END.format(script=static('app.js'))


def _hash(text: str) -> str:
  digest = hashlib.sha256(text.encode()).digest()
  return f"'sha256-{base64.b64encode(digest).decode()}'"
