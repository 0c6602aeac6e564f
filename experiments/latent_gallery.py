"""Writes the galleries in docs/features.md: latents with pictures.

Opens a page in Chromium and takes a picture of each latent's page. The folder
has the features in `features` and the page as `explore.html`. Needs the extra
`browser` and Debian's chromium.

  python -m experiments.latent_gallery --gallery=demo --folder=jumprelu_demo
"""

from collections.abc import Mapping, Sequence
import pathlib
import shutil
import sys
import types
from typing import NamedTuple

from absl import flags

from jumprelu import errors
from jumprelu.explore import page_data
from jumprelu.features import reading
from jumprelu.run import main as main_lib

_DOCS = pathlib.Path(__file__).resolve().parent.parent / 'docs'
_PAGE = _DOCS / 'features.md'
_BEGIN, _END = '<!-- gallery of {} -->\n', '<!-- end of the gallery of {} -->\n'
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

# Chosen from 70 latents at equal distances among those that fire on 150 to 4,000
# of 198,917 tokens, in the order of the entropy of these tokens, the lowest 30 %
# left out.
GEMMA = (
    Entry('resid_post/50', 15864, ' found', 'forms of `find`'),
    Entry('resid_post/50', 2, ' solution', 'solutions and to solve'),
    Entry('resid_post/50', 16105, ' strategy', 'strategies and tactics'),
    Entry('resid_post/50', 9011, ' Has', 'the verb at the start of a question'),
    Entry(
        'resid_post/50', 4933, ' Finally', 'the last entry of an enumeration'
    ),
    Entry('resid_post/50', 13399, 'known', 'a name is introduced: `known as`'),
    Entry('resid_post/50', 11357, ' Ralph', "a person's first name"),
    Entry(
        'resid_post/50', 7735, ' applauded', 'reactions, before those who react'
    ),
    Entry('resid_post/50', 2435, ' belong', 'to belong or be handed to'),
    Entry('resid_post/50', 4796, ' reputation', 'fame and reputation'),
)
GEMMA_MEANINGLESS = (
    Entry('resid_post/50', 4282, ' wages', 'words without a common context'),
    Entry('resid_post/50', 5889, ' centre', 'words without a common context'),
)


GALLERIES: Mapping[str, Mapping[str, tuple[Entry, ...]]] = (
    types.MappingProxyType({
        'demo': {
            'Latents with an evident meaning': MEANINGFUL,
            'Latents without an evident meaning': MEANINGLESS,
        },
        'gemma3_270m': {
            'Ten latents with an evident meaning': GEMMA,
            'Two without an evident meaning': GEMMA_MEANINGLESS,
        },
    })
)  # fmt: skip


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  flags.DEFINE_enum(
      'gallery',
      'demo',
      list(GALLERIES),
      'The gallery.',
      flag_values=flag_values,
  )
  flags.DEFINE_string(
      'folder',
      'jumprelu_demo',
      'The folder of features and page.',
      flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues) -> int:
  """Takes the pictures, replaces the gallery, and returns the exit code."""
  name, folder = flag_values.gallery, pathlib.Path(flag_values.folder)
  data = page_data.collect(folder / 'features', title='')
  paths = {m['link']: m['id'] for m in data.index['members']}
  vocabulary = reading.read_vocabulary(folder / 'features')['piece'].to_pylist()
  rows = {}
  for entry in (e for group in GALLERIES[name].values() for e in group):
    (row,) = reading.read_latents(
        folder / 'features', paths[entry.link], latents=[entry.latent]
    )
    tops = [vocabulary[top['token']] for top in row['top_tokens']]
    if entry.token not in tops:
      raise errors.UserError(
          f'{folder}: latent {entry.link}/{entry.latent} does not fire on'
          f' {entry.token!r}: these SAEs were trained on other hardware'
      )
    rows[entry] = row
  pictures = {entry: _picture(name, entry) for entry in rows}
  _take_pictures(folder / 'explore.html', pictures)
  gallery = ''.join(
      f'### {heading}\n\n'
      + ''.join(_render(e, rows[e], pictures[e], vocabulary) for e in group)
      for heading, group in GALLERIES[name].items()
  )
  begin, end = _BEGIN.format(name), _END.format(name)
  before, rest = _PAGE.read_text('utf-8').split(begin)
  _, after = rest.split(end)
  _PAGE.write_text(before + begin + gallery + end + after, 'utf-8')
  return 0


def _picture(gallery: str, entry: Entry) -> str:
  prefix = '' if gallery == 'demo' else f'{gallery}_'
  link = entry.link.replace('/', '_')
  return f'latents/{prefix}{link}_{entry.latent}.png'


def _take_pictures(page: pathlib.Path, pictures: Mapping[Entry, str]) -> None:
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
    for entry, picture in pictures.items():
      tab.goto(f'{page.absolute().as_uri()}#{entry.link}/{entry.latent}')
      tab.get_by_role('heading', name=f'Latent {entry.latent}').wait_for()
      tab.get_by_text('Effect on logits').wait_for()
      # The canvas of a chart is painted in the next frame.
      tab.wait_for_timeout(300)
      path = _DOCS / picture
      tab.screenshot(path=path)
      _reduce(path)
    chromium.close()


def _reduce(path: pathlib.Path) -> None:
  """Reduces the colours of a picture, to a third of its bytes."""
  from PIL import Image

  with Image.open(path) as image:
    reduced = image.convert('RGB').quantize(_COLOURS, dither=Image.Dither.NONE)
  reduced.save(path, optimize=True)


def _render(
    entry: Entry, row: Mapping, picture: str, vocabulary: Sequence[str]
) -> str:
  """Returns the text of a latent."""
  tops, promoted = (
      ', '.join(_code(vocabulary[item['token']]) for item in row[column][:5])
      for column in ('top_tokens', 'promoted')
  )
  return (
      f'**{entry.link}/{entry.latent}: {entry.text}.** Fires on'
      f' {row["frequency"]:.2%} of the tokens, most strongly on {tops};'
      f' promotes {promoted}.\n\n'
      f'![page of latent {entry.link}/{entry.latent}]({picture})\n\n'
  )


def _code(piece: str) -> str:
  """Returns a piece as code in Markdown, with marks for white space."""
  text = piece.replace('\n', '\u23ce').replace('\t', '\u21e5')
  text = text.replace(' ', '\u00b7')
  return f'`` {text} ``' if '`' in text else f'`{text}`'


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.latent_gallery',
          sys.argv[1:],
      )
  )
