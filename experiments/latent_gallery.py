"""Writes the gallery in docs/features.md: latents of the demo, with pictures.

Opens the demo's page in Chromium and takes a picture of each latent's page.
Needs the extra `browser` and Debian's chromium.

python -m experiments.latent_gallery --demo=jumprelu_demo
"""

import pathlib
import shutil
from typing import NamedTuple

from absl import app, flags

from jumprelu import errors
from jumprelu.explore import page_data
from jumprelu.features import reading

_DEMO = flags.DEFINE_string('demo', 'jumprelu_demo', "The demo's folder.")

_DOCS = pathlib.Path(__file__).resolve().parent.parent / 'docs'
_PAGE = _DOCS / 'features.md'
_BEGIN, _END = '<!-- gallery -->\n', '<!-- end of the gallery -->\n'
_SIZE = {'width': 1180, 'height': 760}
_COLOURS = 128


class Entry(NamedTuple):
  """A latent of the gallery.

  Attributes:
    link: Its link in the page, without the number.
    latent: Its number.
    token: A top token that identifies it: other hardware may train other SAEs.
    text: The description.
  """

  link: str
  latent: int
  token: str
  text: str


MEANINGFUL = (
    Entry('resid_post/16', 2, ').', 'the end of a sentence in prose'),
    Entry('resid_post/16', 6, '"""', 'the quotes that open a docstring'),
    Entry('resid_post/16', 197, '."""', 'the quotes that close a docstring'),
    Entry('resid_post/28', 434, 'if', '`if` at the start of a statement'),
    Entry('resid_post/16', 428, '("', 'the start of an error message'),
    Entry('resid_post/16', 59, ' "', 'a mark that opens a quotation in prose'),
    Entry('resid_post/16', 32, 'os', '`os` or `os.path` before an attribute'),
    Entry('resid_post/16', 391, '.__', 'the underscores before a special name'),
    Entry('attn_heads/18', 58, 'reduce', 'the name within the underscores'),
    Entry('resid_post/16', 178, ' ==', 'operators that compare'),
    Entry(
        'resid_post/16', 369, '\n\n', 'an empty line before an indented block'
    ),
    Entry('resid_post/16', 230, ' SIGN', 'the last word of the name of a sign'),
    Entry('resid_post/16', 322, ' a', 'the indefinite article'),
    Entry('resid_post/16', 416, '-', 'the hyphen of a compound word'),
    Entry('resid_post/16', 234, ' to', '`to` or a modal verb before a verb'),
    Entry('attn_heads/18', 191, 'thread', 'a name in backquotes'),
    Entry(
        'attn_heads/18', 340, 'arg', 'a name in the braces of a format string'
    ),
    Entry('transcoder/8', 458, ' would', 'modal verbs'),
    Entry(
        'transcoder/8', 227, 'Return', '`Return` at the start of a docstring'
    ),
)
MEANINGLESS = (
    Entry('resid_post/16', 10, 'static', 'ends of unrelated words'),
    Entry('resid_post/16', 191, ' con', 'starts of unrelated words'),
    Entry('resid_post/16', 349, 'y', 'letters without a common context'),
    Entry('attn_heads/18', 203, ' args', 'names and numbers of all kinds'),
    Entry(
        'attn_heads/18', 423, 'hex', 'pieces of names, with weak activations'
    ),
)


def main(argv: list[str]) -> None:
  """Takes the pictures and replaces the gallery."""
  del argv
  demo = pathlib.Path(_DEMO.value)
  data = page_data.collect(demo / 'features', title='')
  paths = {m['link']: m['id'] for m in data.index['members']}
  vocabulary = reading.read_vocabulary(demo / 'features')['piece'].to_pylist()
  rows = {}
  for entry in (*MEANINGFUL, *MEANINGLESS):
    (row,) = reading.read_latents(
        demo / 'features', paths[entry.link], latents=[entry.latent]
    )
    tops = [vocabulary[top['token']] for top in row['top_tokens']]
    if entry.token not in tops:
      raise errors.UserError(
          f'{demo}: latent {entry.link}/{entry.latent} does not fire on'
          f' {entry.token!r}: these SAEs were trained on other hardware'
      )
    rows[entry] = row
  _take_pictures(demo / 'explore.html', list(rows))
  text = _PAGE.read_text('utf-8')
  before, rest = text.split(_BEGIN)
  _, after = rest.split(_END)
  _PAGE.write_text(
      before + _BEGIN + _render(rows, vocabulary) + _END + after, 'utf-8'
  )


def _picture(entry: Entry) -> str:
  return f'latents/{entry.link.replace("/", "_")}_{entry.latent}.png'


def _take_pictures(page: pathlib.Path, entries: list[Entry]) -> None:
  """Writes a picture of each latent's page."""
  from playwright import sync_api

  folder = _DOCS / 'latents'
  folder.mkdir(exist_ok=True)
  with sync_api.sync_playwright() as playwright:
    chromium = playwright.chromium.launch(
        executable_path=shutil.which('chromium'), args=['--no-sandbox']
    )
    tab = chromium.new_page(viewport=_SIZE, color_scheme='light')
    tab.goto(page.absolute().as_uri())
    for entry in entries:
      tab.goto(f'{page.absolute().as_uri()}#{entry.link}/{entry.latent}')
      tab.get_by_role('heading', name=f'Latent {entry.latent}').wait_for()
      tab.get_by_text('Effect on logits').wait_for()
      # The canvas of a chart is painted in the next frame.
      tab.wait_for_timeout(300)
      path = _DOCS / _picture(entry)
      tab.screenshot(path=path)
      _reduce(path)
    chromium.close()


def _reduce(path: pathlib.Path) -> None:
  """Reduces the colours of a picture, to a third of its bytes."""
  from PIL import Image

  with Image.open(path) as image:
    reduced = image.convert('RGB').quantize(_COLOURS, dither=Image.Dither.NONE)
  reduced.save(path, optimize=True)


def _render(rows: dict[Entry, dict], vocabulary: list[str]) -> str:
  """Returns the text of the gallery."""
  parts = ['### Latents with an evident meaning\n\n']
  for entry, row in rows.items():
    if entry == MEANINGLESS[0]:
      parts.append('### Latents without an evident meaning\n\n')
    promoted = ', '.join(
        _code(vocabulary[item['token']]) for item in row['promoted'][:5]
    )
    tops = ', '.join(
        _code(vocabulary[item['token']]) for item in row['top_tokens'][:5]
    )
    parts.append(
        f'**{entry.link}/{entry.latent}: {entry.text}.** Fires on'
        f' {row["frequency"]:.2%} of the tokens, most strongly on {tops};'
        f' promotes {promoted}.\n\n'
        f'![page of latent {entry.link}/{entry.latent}]({_picture(entry)})\n\n'
    )
  return ''.join(parts)


def _code(piece: str) -> str:
  """Returns a piece as code in Markdown, with marks for white space."""
  text = piece.replace('\n', '\u23ce').replace('\t', '\u21e5')
  text = text.replace(' ', '\u00b7')
  return f'`` {text} ``' if '`' in text else f'`{text}`'


if __name__ == '__main__':
  app.run(main)
