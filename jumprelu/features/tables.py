"""The second phase: the tables of all members, by several threads.

A thread computes a block of latents at a time, of any member. NumPy, SciPy and
JAX release Python's lock in the loops that take long.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
import itertools
import os
import pathlib
from typing import Any, TypeVar

from jumprelu import features
from jumprelu.features import (
    examples,
    member_table,
    passages,
    reading,
    segments,
)
from jumprelu.files import progress_line

# Each holds one block.
MAX_THREADS = 4

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')


def write(
    members: Sequence[member_table.Member],
    draft: pathlib.Path,
    *,
    parts: Sequence[segments.Segment],
    unembedding: member_table.Unembedding,
    config: features.Config,
) -> list[Mapping[str, str]]:
  """Writes the members' files and returns the names of each member's.

  Files of members that are complete are kept.

  Args:
    members: The members.
    draft: The folder of the files.
    parts: The segments.
    unembedding: The map to logits.
    config: The config.
  """
  pool = examples.draw_pool(parts, config=config)
  texts = passages.draw(parts, config=config)
  passages.write(texts, parts, path=draft / reading.TEXTS)
  names = {member.path: reading.member_files(member.path) for member in members}
  tables = (
      member_table.MemberTable(
          member,
          [
              other
              for other in members
              if other is not member
              and other.reads.targets == member.reads.targets
          ],
          parts=parts,
          pool=pool,
          unembedding=unembedding,
          config=config,
      )
      for member in members
      if not (draft / names[member.path]['file']).exists()
  )
  blocks = ((table, block) for table in tables for block in table.blocks())

  threads = min(MAX_THREADS, os.cpu_count() or 1)
  total = sum(member.sae.width for member in members)
  progress = progress_line.ProgressLine('features: latents', total)
  computed = in_order(_rows, blocks, threads=threads)
  done = 0
  for table, group in itertools.groupby(computed, lambda item: item[0]):
    files = names[table.member.path]
    # A member is complete once its table exists, so the table is written last.
    active = passages.firings(texts, table.opened)
    path = draft / files['text_firings']
    passages.write_firings(texts, active, path=path)
    table.write(draft / files['file'], (rows for _, rows in group))
    done += table.member.sae.width
    progress.update(done)
  return list(names.values())


def _rows(
    item: tuple[member_table.MemberTable, segments.Block],
) -> tuple[member_table.MemberTable, Any]:
  table, block = item
  return table, table.rows(block)


def in_order(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    threads: int,
) -> Iterator[_Result]:
  """Yields the result for each item, in order, computed by several threads.

  At most `threads` results wait for their turn.
  """
  waiting: collections.deque[futures.Future[Any]] = collections.deque()
  pool = futures.ThreadPoolExecutor(threads)
  try:
    for item in items:
      waiting.append(pool.submit(function, item))
      if len(waiting) > threads:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    pool.shutdown(cancel_futures=True)
