"""Text from TensorFlow Datasets, read once and in order, never downloaded.

TensorFlow is imported only while a set is read into the token caches; training
reads the caches. The set must already be prepared.
"""

from collections.abc import Iterator
import functools
import os
from typing import Any

from jumprelu import extras
from jumprelu.data.bad_rows import BadRows
from jumprelu.data.documents import Document, sha256
from jumprelu.errors import MissingInputError, UserError


class TfdsSet:
  """A source with one document per example of a split of a TFDS set."""

  def __init__(
      self,
      name: str,
      *,
      data_dir: str,
      split: str,
      text_field: str,
      max_bad_rows: float = 0.0,
  ):
    self.name = name.replace('/', '-')
    self._set = name
    self._data_dir = os.path.expanduser(data_dir) or None
    self._max_bad_rows = max_bad_rows
    self.bad_rows = BadRows(max_bad_rows)
    self._split = split
    self._text_field = text_field

  @functools.cached_property
  def _builder(self) -> Any:
    with extras.imports():
      import tensorflow as tf
      import tensorflow_datasets as tfds

    # TensorFlow would otherwise allocate the GPU memory that JAX needs.
    tf.config.set_visible_devices([], 'GPU')
    cure = (
        f'prepare it with `tfds build {self._set}'
        f'{" --data_dir=" + self._data_dir if self._data_dir else ""}` on a'
        ' machine with network access, or set --corpus.data_dir to its folder'
    )
    try:
      builder: Any = tfds.builder(self._set, data_dir=self._data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as e:
      reason = str(e).splitlines()[0]
      raise MissingInputError(f'tfds:{self._set}: {reason}; {cure}') from None
    if not builder.info.splits:
      where = self._data_dir or '~/tensorflow_datasets'
      raise MissingInputError(
          f'tfds:{self._set}: not prepared in {where}; {cure}'
      )
    try:
      builder.info.splits[self._split]
    except (KeyError, ValueError):
      raise UserError(
          f'tfds:{self._set}: no split {self._split!r} among'
          f' {sorted(builder.info.splits)}; set --corpus.tfds_split'
      ) from None
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict):
      raise UserError(
          f'tfds:{self._set}: its examples have no fields; use another set'
      )
    fields = sorted(features.keys())
    if self._text_field not in fields:
      raise UserError(
          f'tfds:{self._set}: no field {self._text_field!r} among {fields};'
          ' name the field that holds the text with --corpus.text_field'
      )
    return builder

  def documents(self) -> Iterator[Document]:
    """Yields the examples in their stored order."""
    with extras.imports():
      import tensorflow_datasets as tfds

    examples = self._builder.as_dataset(
        split=self._split,
        shuffle_files=False,
        read_config=tfds.ReadConfig(
            interleave_cycle_length=1, try_autocache=False
        ),
    )
    self.bad_rows.start()
    for number, example in enumerate(tfds.as_numpy(examples)):
      name = f'{self._set}:{self._split}:{number}'
      raw = example[self._text_field]
      if not isinstance(raw, bytes):
        raise UserError(
            f'tfds:{self._set}: field {self._text_field!r} is not text; set'
            ' --corpus.text_field to another field'
        )
      try:
        text = raw.decode('utf-8')
      except UnicodeDecodeError as e:
        self.bad_rows.bad(
            UserError(
                f'{name}: field {self._text_field!r} is not UTF-8 at byte'
                f' {e.start}; set --corpus.text_field to another field'
            )
        )
        continue
      self.bad_rows.good()
      if text.strip():
        yield Document(name, text)
    self.bad_rows.end_file(f'tfds:{self._set}')

  def describe(self) -> dict[str, Any]:
    """Returns the set's full name with its version, and its sizes."""
    split = self._builder.info.splits[self._split]
    return {
        'kind': 'tfds',
        'set': self._builder.info.full_name,
        'split': self._split,
        'text_field': self._text_field,
        'examples': split.num_examples,
        'bytes': split.num_bytes,
        **({'max_bad_rows': self._max_bad_rows} if self._max_bad_rows else {}),
    }

  def split_key(self, document: Document) -> str:
    """Returns the hash of the text without surrounding white space."""
    return sha256(document.text.strip())

  def size(self) -> int:
    """Returns the bytes of the split, including fields other than the text."""
    return int(self._builder.info.splits[self._split].num_bytes or 0)

  def summary(self) -> str:
    """Returns name, split, number of examples and bytes."""
    examples = self._builder.info.splits[self._split].num_examples or 0
    return (
        f'{self._set}:{self._split}, {examples:,} examples,'
        f' {self.size() / 1e6:,.1f} MB'
    )
