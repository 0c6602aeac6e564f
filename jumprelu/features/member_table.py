"""The table of a member: a row per latent, computed in blocks of latents."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from jumprelu import extras, features, lm, metrics
from jumprelu.array_typing import Float, Int
from jumprelu.features import (
    arrow,
    coactivation,
    examples,
    products,
    ranked_rows,
    segments,
    statistics,
)
from jumprelu.lm import logit_effects
from jumprelu.saes import base

# Latents that are processed together: at most this many, and fewer in wide
# members, so that a matrix of them by the width has at most BLOCK_PAIRS entries.
BLOCK_LATENTS = 512
BLOCK_PAIRS = 1 << 25


@dataclasses.dataclass(frozen=True)
class Member:
  """A member as the second phase reads it.

  Attributes:
    number: Its number in the collection.
    path: Its path in the release.
    sae: Its shape.
    params: Its parameters for raw activations, on the host.
    reads: Its taps.
  """

  number: int
  path: str
  sae: base.Sae
  params: Mapping[str, np.ndarray]
  reads: lm.Reads

  @functools.cached_property
  def decoder(self) -> Float[np.ndarray, 'latents d_out']:
    """Returns the decoder's rows, scaled to unit norm."""
    return products.unit_rows(self.params['W_dec'])


@dataclasses.dataclass(frozen=True)
class Unembedding:
  """The map from the residual stream to logits, on the host.

  Attributes:
    model: The language model with the parameters that the map needs.
    rows: The unembedding rows of the tokenizer's pieces.
    gain: The gain of the final norm.
  """

  model: lm.LanguageModel
  rows: Float[np.ndarray, 'vocab model']
  gain: Float[np.ndarray, ' model']


class MemberTable:
  """The table of a member, which reads its firings from the disk."""

  def __init__(
      self,
      member: Member,
      others: Sequence[Member],
      *,
      parts: Sequence[segments.Segment],
      pool: examples.Pool,
      unembedding: Unembedding,
      config: features.Config,
  ):
    """Prepares the table.

    Args:
      member: The member.
      others: Members of the same targets, whose nearest decoder rows are listed.
      parts: The segments.
      pool: The windows among which silent examples are chosen.
      unembedding: The map to logits.
      config: The config.
    """
    self.member = member
    self.opened = segments.open_member(parts, member.number)
    self._pool = pool
    self._unembedding = unembedding
    self._config = config
    self._others = others
    self._tokens, self._counts = self._count()

  def _count(self) -> tuple[int, Int[np.ndarray, ' latents']]:
    """Returns the numbers of kept tokens and of firings of each latent."""
    tokens, counts = 0, np.zeros(self.member.sae.width, np.int64)
    for segment, firings, _ in self.opened:
      tokens += int(segment.keep.sum())
      counts += np.diff(firings.starts)
    return tokens, counts

  def write(self, path: pathlib.Path, tables: Iterable[Any]) -> None:
    """Writes the rows of all blocks as Parquet.

    Args:
      path: The file, which appears when it is complete.
      tables: The result of `rows` for each block.
    """
    with extras.imports():
      from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + '.partial')
    tables = iter(tables)
    first = next(tables)
    with parquet.ParquetWriter(
        draft, first.schema, compression='zstd'
    ) as writer:
      writer.write_table(first)
      for table in tables:
        writer.write_table(table)
    draft.rename(path)

  def blocks(self) -> Iterator[segments.Block]:
    """Yields the blocks of latents, in order."""
    width = self.member.sae.width
    size = max(1, min(BLOCK_LATENTS, BLOCK_PAIRS // width))
    for start in range(0, width, size):
      stop = min(start + size, width)
      yield segments.Block(self.opened, start, stop)

  def rows(self, block: segments.Block) -> Any:
    """Returns the rows of a block of latents, as an Arrow table."""
    with extras.imports():
      import pyarrow

    return pyarrow.table(
        self._activations(block)
        | self._directions(block)
        | self._coactive(block)
    )

  def _activations(self, block: segments.Block) -> dict[str, Any]:
    """Returns the columns that are computed from firings."""
    config, size = self._config, block.size
    merged = statistics.of_block(
        block, counts=self._counts[block.start : block.stop], config=config
    )
    sums, top = merged.sums, merged.top
    is_first = np.append(True, top.latent[1:] != top.latent[:-1])
    is_first = is_first[: len(top.latent)]
    largest = np.zeros(size, np.float32)
    largest[top.latent[is_first]] = top.value[is_first]
    mean = np.where(sums.count == 0, 0, metrics.ratio(sums.total, sums.count))
    bands = examples.bands(merged.sample, latents=size, config=config)
    silent = examples.silent(self._pool, block, config=config)
    windows = examples.windows(
        (top, bands.places, silent), block, window=config.window
    )
    thresholds = self.member.params.get('threshold')
    if thresholds is None:
      thresholds = np.full(self.member.sae.width, np.nan)
    return {
        'member': [self.member.path] * size,
        'latent': np.arange(block.start, block.stop, dtype=np.int32),
        'tokens': np.full(size, self._tokens),
        'count': sums.count,
        'frequency': sums.count / max(self._tokens, 1),
        'mean': mean,
        'largest': largest,
        'threshold': _numbers(thresholds[block.start : block.stop]),
        'histogram': arrow.rows_of(sums.histogram.astype(np.int32)),
        'position_profile': arrow.rows_of(sums.profile.astype(np.int32)),
        'token_entropy': _entropy(merged.tokens, size),
        'top_tokens': _top_tokens(merged.tokens, size, config.listed),
        'band_edges': _edges(bands.edges),
        'examples': _examples(top, windows[0], size),
        'band_examples': _examples(
            bands.places, windows[1], size, band=bands.band
        ),
        'silent_examples': _examples(silent, windows[2], size),
    }

  def _directions(self, block: segments.Block) -> dict[str, Any]:
    """Returns the columns that are computed from parameters."""
    member, listed = self.member, self._config.listed
    span = slice(block.start, block.stop)
    written = logit_effects.written(
        self._unembedding.model, member.reads, member.params['W_dec'][span]
    )
    effects = written * self._unembedding.gain
    promoted = products.largest(effects, self._unembedding.rows, count=listed)
    lowered = products.largest(-effects, self._unembedding.rows, count=listed)
    rows = self.member.decoder[span]
    near = products.largest(
        rows,
        self.member.decoder,
        count=listed,
        excluded=np.arange(span.start, span.stop),
    )
    return {
        'promoted': _ranked(promoted, 'token', 'effect'),
        'suppressed': _ranked(
            lowered._replace(value=-lowered.value), 'token', 'effect'
        ),
        'neighbours': _ranked(near, 'latent', 'cosine'),
        'neighbours_elsewhere': self._elsewhere(rows),
        'decoder_norm': np.linalg.norm(member.params['W_dec'][span], axis=1),
        'encoder_cosine': _numbers(self._encoder_cosine(span)),
    }

  def _elsewhere(self, rows: np.ndarray) -> Any:
    """Returns the nearest decoder rows of all other members together."""
    with extras.imports():
      import pyarrow

    listed = self._config.listed
    parts = [
        (np.full((len(rows), listed), i)[:, : near.index.shape[1]], *near)
        for i, near in enumerate(
            products.largest(rows, other.decoder, count=listed)
            for other in self._others
        )
    ]
    paths = pyarrow.array([other.path for other in self._others], 'string')
    if not parts:
      empty = np.zeros((len(rows), 0))
      parts = [(empty.astype(int), empty.astype(int), empty.astype('f4'))]
    member, index, value = (
        np.concatenate(x, 1) for x in zip(*parts, strict=True)
    )
    order = np.argsort(-value, axis=1, kind='stable')[:, :listed]
    member, index, value = (
        np.take_along_axis(x, order, 1) for x in (member, index, value)
    )
    entries = arrow.records(
        {
            'member': paths.take(pyarrow.array(member.reshape(-1), 'int64')),
            'latent': index.reshape(-1).astype(np.int32),
            'cosine': value.reshape(-1),
        }
    )
    return arrow.lists(np.arange(len(rows) + 1) * order.shape[1], entries)

  def _encoder_cosine(self, span: slice) -> np.ndarray:
    """Returns the cosine of encoder and decoder; NaN for transcoders."""
    member = self.member
    if member.reads.is_transcoder:
      return np.full(span.stop - span.start, np.nan)
    encoder = products.unit_rows(member.params['W_enc'][:, span].T)
    return (encoder * self.member.decoder[span]).sum(axis=1)

  def _coactive(self, block: segments.Block) -> dict[str, Any]:
    """Returns the column of co-active latents."""
    entries = coactivation.coactive(
        block, counts=self._counts, count=self._config.listed
    )
    records = arrow.records(
        {
            'latent': entries.latent.astype(np.int32),
            'jaccard': entries.jaccard,
            'both': entries.both,
        }
    )
    return {'coactive': arrow.lists(entries.starts, records)}


def _examples(
    places: statistics.Places,
    windows: examples.Windows,
    size: int,
    **fields: np.ndarray,
) -> Any:
  """Returns a column with the places and windows of each of `size` latents."""
  entries = {
      'value': places.value,
      **{name: x.astype(np.int32) for name, x in fields.items()},
      'position': places.position,
      'document': places.document,
      'offset': places.position - places.document,
      'index': windows.index.astype(np.int32),
      'tokens': arrow.lists(windows.starts, windows.tokens),
      'values': arrow.lists(windows.starts, windows.values),
  }
  starts = ranked_rows.starts_of(places.latent, size)
  return arrow.lists(starts, arrow.records(entries))


def _numbers(values: np.ndarray) -> Any:
  """Returns an Arrow array in which NaN is null."""
  with extras.imports():
    import pyarrow

  return pyarrow.array(np.asarray(values, np.float32), from_pandas=True)


def _edges(edges: Float[np.ndarray, 'latents bands_and_end']) -> Any:
  """Returns a column of lists, empty for latents without bands."""
  has_bands = ~np.isnan(edges[:, 0])
  counts = np.where(has_bands, edges.shape[1], 0)
  return arrow.lists(
      np.append(0, np.cumsum(counts)), edges[has_bands].reshape(-1)
  )


def _ranked(ranked: products.Largest, index: str, value: str) -> Any:
  """Returns a column of lists of (index, value)."""
  rows, count = ranked.index.shape
  entries = arrow.records(
      {
          index: ranked.index.reshape(-1).astype(np.int32),
          value: ranked.value.reshape(-1),
      }
  )
  return arrow.lists(np.arange(rows + 1) * count, entries)


def _entropy(
    tokens: statistics.Tokens, size: int
) -> Float[np.ndarray, ' latents']:
  """Returns the entropy in bits of the tokens on which each latent fires."""
  latents, counts = tokens.latent, tokens.sums.data.real
  totals = statistics.sums_of(latents, counts, size)
  share = counts / totals[latents]
  return np.abs(statistics.sums_of(latents, share * np.log2(share), size))


def _top_tokens(tokens: statistics.Tokens, size: int, count: int) -> Any:
  """Returns a column of the tokens with the largest mean activation."""
  sums = tokens.sums
  mean = sums.data.imag / sums.data.real
  order = ranked_rows.first(sums.indptr, -mean, count)
  entries = arrow.records(
      {
          'token': sums.indices[order].astype(np.int32),
          'mean': mean[order],
          'count': sums.data.real[order].astype(np.int64),
      }
  )
  starts = ranked_rows.starts_of(tokens.latent[order], size)
  return arrow.lists(starts, entries)
