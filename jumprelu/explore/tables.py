"""The containers of a member: its table, its search lists and its shards."""

from collections.abc import Iterator, Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

import numpy as np

from jumprelu.explore import container
from jumprelu.features import arrow, reading

# Kinds of examples; bands are counted from 0, the weakest.
STRONGEST, SILENT = -1, -2
# Latents with fewer strongest examples are counted in the page's footer.
FEW_EXAMPLES = 10
_PAD = -1

Arrays = dict[str, Any]


def overview(table: Any) -> Arrays:
  """Returns the container of a member's table: a value per latent."""
  arrays: Arrays = {'count': arrow.numbers(table['count'], np.int32)}
  for name in (
      'frequency',
      'mean',
      'largest',
      'threshold',
      'token_entropy',
      'decoder_norm',
      'encoder_cosine',
  ):
    arrays[name] = arrow.numbers(table[name], np.float32)
  arrays['top_token'] = matrix(table['top_tokens'])[:, 0]
  arrays['promoted_token'] = matrix(table['promoted'])[:, 0]
  arrays['examples'] = np.diff(arrow.lists_of(table['examples']).starts)
  return arrays


def search(table: Any) -> Arrays:
  """Returns the container of the token ids by which latents are searched."""
  starts, examples = arrow.lists_of(table['examples'])
  windows, tokens = arrow.lists_of(arrow.fields(examples)['tokens'])
  latent = np.repeat(np.arange(len(starts) - 1), np.diff(windows[starts]))
  token = arrow.numbers(tokens, np.int64)
  size = int(token.max(initial=0)) + 1
  keys = np.unique(latent * size + token)
  return {
      'top': matrix(table['top_tokens']),
      'promoted': matrix(table['promoted']),
      'context.start': np.searchsorted(
          keys, np.arange(len(starts)) * size
      ).astype(np.int32),
      'context': (keys % size).astype(_token_type(size)),
  }


def texts(folder: pathlib.Path, members: Sequence[str]) -> bytes:
  """Returns the passages of text and the active latents of each token."""
  passages = arrow.lists_of(reading.read_texts(folder)['tokens'])
  arrays: Arrays = {
      'start': passages.starts,
      'tokens': arrow.numbers(passages.values, np.int32),
  }
  for i, member in enumerate(members):
    firings = reading.read_text_firings(folder, member)
    starts, latents = arrow.lists_of(firings['latents'])
    values = arrow.numbers(arrow.lists_of(firings['values']).values, np.float32)
    arrays |= {
        f'm{i}.start': starts,
        f'm{i}.latent': arrow.numbers(latents, np.int32),
        f'm{i}.value': container.rounded(values),
    }
  return container.pack(arrays)


def matrix(column: Any) -> np.ndarray:
  """Returns the tokens of a column of lists, a row per latent, padded by -1."""
  starts, values = arrow.lists_of(column)
  lengths = np.diff(starts)
  out = np.full((len(lengths), max(1, lengths.max(initial=0))), _PAD, np.int32)
  rows = np.repeat(np.arange(len(lengths)), lengths)
  columns = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
  out[rows, columns] = arrow.numbers(arrow.fields(values)['token'], np.int32)
  return out


def shards(
    table: Any, size: int, *, members: Mapping[str, int], vocab: int
) -> Iterator[Arrays]:
  """Yields the containers of a member's shards.

  Args:
    table: The member's table of features.
    size: Latents per shard.
    members: The numbers of the page's members, by path.
    vocab: The number of token ids.
  """
  table = table.combine_chunks()
  for start in range(0, table.num_rows, size):
    part = table.slice(start, size)
    yield (
        _activations(part)
        | _directions(part, members)
        | _examples(part, _token_type(vocab))
    )


def _activations(table: Any) -> Arrays:
  """Returns the arrays that describe where latents fire, but examples."""
  rows = table.num_rows
  edges = arrow.lists_of(table['band_edges'])
  columns = int(np.diff(edges.starts).max(initial=0))
  bands = np.full((rows, columns), np.nan, np.float32)
  bands[np.diff(edges.starts) > 0] = arrow.numbers(
      edges.values, np.float32
  ).reshape(-1, max(columns, 1))
  return {
      'histogram': _rows(table['histogram']),
      'position_profile': _rows(table['position_profile']),
      'band_edges': bands,
      **_records(
          'top_tokens',
          table['top_tokens'],
          {'token': np.int32, 'mean': np.float32, 'count': np.int32},
      ),
  }


def _directions(table: Any, members: Mapping[str, int]) -> Arrays:
  """Returns the arrays of logit effects, neighbours and co-activations."""
  effects = {'token': np.int32, 'effect': np.float32}
  near = {'latent': np.int32, 'cosine': np.float32}
  elsewhere = table['neighbours_elsewhere']
  paths = arrow.fields(arrow.lists_of(elsewhere).values)[
      'member'
  ].dictionary_encode()
  numbers = [members.get(path, -1) for path in paths.dictionary.to_pylist()]
  index = arrow.numbers(paths.indices, np.int64)
  both = {'latent': np.int32, 'jaccard': np.float32, 'both': np.int32}
  return {
      **_records('promoted', table['promoted'], effects),
      **_records('suppressed', table['suppressed'], effects),
      **_records('neighbours', table['neighbours'], near),
      **_records('elsewhere', elsewhere, near),
      'elsewhere.member': np.asarray(numbers, np.int32)[index],
      **_records('coactive', table['coactive'], both),
  }


def _records(name: str, column: Any, types: Mapping[str, Any]) -> Arrays:
  """Returns the starts of lists of records, and their fields."""
  starts, values = arrow.lists_of(column)
  parts = arrow.fields(values)
  return {f'{name}.start': starts} | {
      f'{name}.{field}': arrow.numbers(parts[field], dtype)
      for field, dtype in types.items()
  }


def _examples(table: Any, token_type: Any) -> Arrays:
  """Returns the examples of all kinds, sorted by latent and kind.

  The windows of examples overlap, because latents fire on the same text. The
  array `tokens` holds each token of the shard's windows once, in the order of
  the text: example i has the tokens from `examples.tokens[i]`, as many as it
  has activations. Of the activations, `values.fires` holds a bit for each (the
  first in the highest bit), and `values` those at set bits.
  """
  parts = [
      _Examples.of(table['examples'], STRONGEST),
      _Examples.of(table['band_examples']),
      _Examples.of(table['silent_examples'], SILENT),
  ]
  latent, lengths, positions = (
      np.concatenate([getattr(part, name) for part in parts])
      for name in ('latent', 'lengths', 'positions')
  )
  order = np.argsort(latent, kind='stable')
  starts = (np.cumsum(lengths) - lengths)[order]
  lengths, positions = lengths[order], positions[order]
  windows = np.append(0, np.cumsum(lengths)).astype(np.int32)
  within = np.arange(windows[-1]) - np.repeat(windows[:-1], lengths)
  gather = within + np.repeat(starts, lengths)
  tokens, values = (
      np.concatenate([getattr(part, name) for part in parts])[gather]
      for name in ('tokens', 'values')
  )
  every = np.repeat(positions, lengths) + within
  distinct, first = np.unique(every, return_index=True)
  return {
      'examples.start': np.searchsorted(
          latent[order], np.arange(table.num_rows + 1)
      ).astype(np.int32),
      **{
          f'examples.{name}': np.concatenate([p.numbers[name] for p in parts])[
              order
          ]
          for name in parts[0].numbers
      },
      'examples.window': windows,
      'examples.tokens': np.searchsorted(distinct, positions).astype(np.int32),
      'tokens': tokens[first].astype(token_type),
      'values.fires': np.packbits(values != 0),
      'values': container.rounded(values[values != 0]),
  }


class _Examples(NamedTuple):
  """Examples of one kind.

  Attributes:
    latent: The latent's number in the shard.
    numbers: The fields of each example.
    lengths: The number of tokens in each window.
    positions: The position of each window's first token in the token cache.
    tokens: The token ids of all windows.
    values: The activations of all windows.
  """

  latent: np.ndarray
  numbers: dict[str, np.ndarray]
  lengths: np.ndarray
  positions: np.ndarray
  tokens: np.ndarray
  values: np.ndarray

  @classmethod
  def of(cls, column: Any, kind: int | None = None) -> '_Examples':
    """Returns the examples of a column; bands are their kinds if None."""
    starts, records = arrow.lists_of(column)
    parts = arrow.fields(records)
    kinds = (
        arrow.numbers(parts['band'], np.int8)
        if kind is None
        else np.full(int(starts[-1]), kind, np.int8)
    )
    windows, tokens = arrow.lists_of(parts['tokens'])
    index = arrow.numbers(parts['index'], np.int32)
    document = arrow.numbers(parts['document'], np.int64)
    return cls(
        np.repeat(np.arange(len(starts) - 1), np.diff(starts)),
        {
            'kind': kinds,
            'value': container.rounded(
                arrow.numbers(parts['value'], np.float32)
            ),
            # An identifier: in a cache of more than 2^31 tokens two documents
            # may share it.
            'document': (document % 2**31).astype(np.int32),
            'offset': arrow.numbers(parts['offset'], np.int32),
            'index': index,
        },
        np.diff(windows),
        arrow.numbers(parts['position'], np.int64) - index,
        arrow.numbers(tokens, np.int32),
        arrow.numbers(arrow.lists_of(parts['values']).values, np.float32),
    )


def _rows(column: Any) -> np.ndarray:
  """Returns a column of lists of equal lengths as an int32 matrix."""
  starts, values = arrow.lists_of(column)
  rows = len(starts) - 1
  return arrow.numbers(values, np.int32).reshape(
      rows, int(starts[-1]) // max(rows, 1)
  )


def _token_type(size: int) -> Any:
  return np.uint16 if size <= 1 << 16 else np.int32
