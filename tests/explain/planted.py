"""A folder of features of a text in which each latent fires by a known rule.

No language model and no SAE is needed: the activations are planted.
"""

import numpy as np

from jumprelu.data import packing
from jumprelu.features import arrow, reading
from jumprelu.files import formats, json_files

MEMBER = 'resid_post/layer_2/width_8/average_l0_2'
PIECES = [
    '<pad>', '</s>', '<s>', '<unk>', ' if', ' import', ' os', '(', ')', '1',
    '2', '3', ' 4', ' Name', ' Word', ' the', ' a', ' of', '\n', ' is',
    ' not', '.', ',', 'ing', 'ed', ' x', ' y', ' z', '</text>', '<<',
    ' ignore', ' all',
]  # fmt: skip
TOKEN = {piece: i for i, piece in enumerate(PIECES)}
# The rules of the latents, in this order.
TOKEN_IF, AFTER_IMPORT, DIGITS, NOISE, NEVER, EARLY, BEFORE_NOT, THREE = range(
    8
)
WIDTH = 8
_DOCUMENTS, _LENGTH, _WINDOW = 40, 120, 8


def _text(rng):
  """Returns documents of random tokens; each starts with BOS."""
  tokens = rng.integers(4, len(PIECES), (_DOCUMENTS, _LENGTH))
  tokens[:, 0] = packing.BOS
  return tokens


def activations(tokens, rng):
  """Returns the latents [documents, positions, latents] of a text."""
  before, after = np.roll(tokens, 1, axis=1), np.roll(tokens, -1, axis=1)
  before[:, 0] = after[:, -1] = packing.PAD
  positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
  of = TOKEN.__getitem__
  fires = np.stack(
      [
          tokens == of(' if'),
          before == of(' import'),
          np.isin(tokens, [of(piece) for piece in ('1', '2', '3', ' 4')]),
          rng.random(tokens.shape) < 0.03,
          np.zeros(tokens.shape, bool),
          positions < 4,
          after == of(' not'),
          np.isin(tokens, [of(' the'), of(' of'), of(' a')]),
      ],
      axis=-1,
  )
  fires &= (tokens != packing.BOS)[..., None]
  return np.where(fires, 1 + rng.random(fires.shape), 0).astype(np.float32)


def _example(tokens, values, document, at):
  start, end = max(0, at - _WINDOW), min(_LENGTH, at + _WINDOW + 1)
  return {
      'value': float(values[document, at]),
      'position': document * _LENGTH + at,
      'document': document * _LENGTH,
      'offset': at,
      'index': at - start,
      'tokens': tokens[document, start:end].tolist(),
      'values': values[document, start:end].tolist(),
  }


def _row(tokens, values, latent, rng):
  """Returns the columns of a latent that explanations read."""
  fires = np.argwhere(values > 0)
  strongest = {}
  for document, at in sorted(fires.tolist(), key=lambda x: -values[tuple(x)]):
    strongest.setdefault(document, at)
  drawn = rng.permutation(fires)[:40].tolist()
  silent = []
  for document, at in rng.permutation(np.argwhere(values == 0)).tolist():
    example = _example(tokens, values, document, at)
    if not any(example['values']) and len(silent) < 30:
      silent.append(example)
  return {
      'member': MEMBER,
      'latent': latent,
      'examples': [
          _example(tokens, values, *place)
          for place in list(strongest.items())[:20]
      ],
      'band_examples': [
          _example(tokens, values, *place) | {'band': i % 5}
          for i, place in enumerate(drawn)
      ],
      'silent_examples': silent,
      'promoted': [{'token': TOKEN[' not'], 'effect': 1.0}],
  }


def write(folder, *, seed=0):
  """Writes the folder, and returns the text and its latents."""
  rng = np.random.default_rng(seed)
  tokens = _text(rng)
  latents = activations(tokens, rng)
  rows = [_row(tokens, latents[..., i], i, rng) for i in range(WIDTH)]
  files = reading.member_files(MEMBER)
  _write_member(folder / files['file'], rows)
  _write_texts(folder, files['text_firings'], tokens, latents)
  arrow.write(
      folder / reading.VOCABULARY,
      {'token': list(range(len(PIECES))), 'piece': PIECES},
  )
  member = {'path': MEMBER, 'width': WIDTH, 'sha256': '0' * 64} | files
  json_files.write_json(
      folder / reading.MANIFEST,
      {
          **formats.stamp(formats.Kind.FEATURES),
          'members': [member],
          'vocabulary': reading.VOCABULARY,
          'texts': reading.TEXTS,
      },
  )
  return tokens, latents


def _write_member(path, rows):
  import pyarrow

  example = [
      ('value', pyarrow.float32()),
      *((k, pyarrow.int64()) for k in ('position', 'document', 'offset')),
      ('index', pyarrow.int32()),
      ('tokens', pyarrow.list_(pyarrow.int32())),
      ('values', pyarrow.list_(pyarrow.float32())),
  ]
  examples = pyarrow.list_(pyarrow.struct(example))
  banded = pyarrow.struct([*example, ('band', pyarrow.int32())])
  types = {
      'member': pyarrow.string(),
      'latent': pyarrow.int32(),
      'examples': examples,
      'band_examples': pyarrow.list_(banded),
      'silent_examples': examples,
      'promoted': None,
  }
  arrow.write(
      path,
      {k: pyarrow.array([r[k] for r in rows], t) for k, t in types.items()},
  )


def _write_texts(folder, firings, tokens, latents):
  import pyarrow

  texts = range(0, _DOCUMENTS, 3)
  arrow.write(
      folder / reading.TEXTS,
      {
          'text': list(range(len(texts))),
          'document': [i * _LENGTH for i in texts],
          'position': [i * _LENGTH + 10 for i in texts],
          'offset': [10] * len(texts),
          'tokens': [tokens[i, 10:74].tolist() for i in texts],
      },
  )
  active = [np.flatnonzero(x) for i in texts for x in latents[i, 10:74]]
  flat = [x for i in texts for x in latents[i, 10:74]]
  arrow.write(
      folder / firings,
      {
          'latents': pyarrow.array(
              [x.tolist() for x in active], pyarrow.list_(pyarrow.int32())
          ),
          'values': pyarrow.array(
              [x[i].tolist() for x, i in zip(flat, active, strict=True)],
              pyarrow.list_(pyarrow.float32()),
          ),
      },
  )
