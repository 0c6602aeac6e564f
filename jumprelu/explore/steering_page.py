"""Continuations under edits as a page, or as rows of JSON lines."""

from collections.abc import Mapping, Sequence
import html
import json
import pathlib
from typing import Any

from jumprelu.evals import table

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 24px; }}
.row {{ display: grid; gap: 12px; grid-auto-flow: column;
  grid-auto-columns: minmax(220px, 1fr); overflow-x: auto; }}
.row > div {{ border: 1px solid #8886; border-radius: 6px; padding: 10px; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: 8px 0 0; }}
p {{ margin: 0; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>KL: KL(plain || edited) per new token in nats. Loss: the plain model's loss
on the continuation in nats, which is high for incoherent text.</p>
{body}
</body>
</html>
"""
# Columns in the head of a continuation, after its strength.
_SHOWN = {'kl': 'KL', 'loss': 'loss', 'keyword': 'keyword', 'score': 'score'}


def write(
    rows: Sequence[Mapping[str, Any]], path: pathlib.Path, *, title: str
) -> None:
  """Writes rows of `jumprelu steer` as PATH.html or PATH.jsonl."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.jsonl':
    text = ''.join(json.dumps(row) + '\n' for row in rows)
  else:
    text = page(rows, title=title)
  path.write_text(text, encoding='utf-8')


def page(rows: Sequence[Mapping[str, Any]], *, title: str) -> str:
  """Returns a page with the continuations of each prompt side by side."""
  groups: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
  for row in rows:
    groups.setdefault((row['latent'], row['prompt']), []).append(row)
  parts = []
  for (latent, prompt), group in groups.items():
    cells = ''.join(map(_cell, group))
    parts.append(
        f'<h2>Latent {latent}</h2>\n<pre>{html.escape(prompt)}</pre>\n'
        f'<div class="row">{cells}</div>'
    )
  return _PAGE.format(title=html.escape(title), body='\n'.join(parts))


def _cell(row: Mapping[str, Any]) -> str:
  strength = row['strength']
  head = 'plain model' if strength is None else f'strength {strength:g}'
  numbers = ', '.join(
      f'{label} {table.format_number(row[name])}'
      for name, label in _SHOWN.items()
      if name in row
  )
  return (
      f'<div><p><b>{head}</b></p><p>{numbers}</p>'
      f'<pre>{html.escape(row["continuation"])}</pre></div>'
  )
