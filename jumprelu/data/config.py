"""Config of the corpus: how text is read, packed and cached."""

import dataclasses
from typing import Literal

from jumprelu.files import fields


@dataclasses.dataclass(frozen=True)
class Config:
  """The conversion of text to rows of tokens; --data names the text."""

  sequence_length: int = fields.field(256, 'Tokens per row, BOS included.')
  held_out_percent: int = fields.field(
      10,
      'Percentage of documents held out for evaluation; a hash selects them.',
  )
  cache_dir: str = fields.field(
      '',
      'Folder of token caches; default $JUMPRELU_CACHE or ~/.cache/jumprelu.',
  )
  data_dir: str = fields.field(
      '', 'Folder of TFDS sets; the default is that of TFDS.'
  )
  tfds_split: str = fields.field('train', 'Split of the TFDS set to read.')
  text_field: str = fields.field(
      'text', 'Field of JSONL, Parquet and TFDS that holds the text.'
  )
  max_tokens: int = fields.field(
      0, 'Stop after the document that reaches this many tokens; 0 reads all.'
  )
  wrap: Literal['none', 'chat'] = fields.field(
      'none',
      "Tokens added around a document: none, or those of Gemma's chat format,"
      ' for instruction-tuned models. SAEs are not trained on the chat tokens'
      ' before the text.',
  )
  max_bad_rows: float = fields.field(
      0.0,
      "Share of a file's rows that may be skipped because they cannot be read,"
      ' such as 0.01; with 0 such a row is an error.',
  )
  seed: int = fields.field(0, 'Seed of the order of the rows.')

  def __post_init__(self):
    for name, low, high in (
        ('sequence_length', 2, 2**20),
        ('held_out_percent', 1, 90),
        ('seed', 0, 2**32 - 1),
    ):
      value = getattr(self, name)
      fields.require(name, value, low <= value <= high, f'{low} to {high}')
    tokens, field = self.max_tokens, self.text_field
    fields.require('max_tokens', tokens, tokens >= 0, '0 (all) or more')
    share = self.max_bad_rows
    fields.require('max_bad_rows', share, 0 <= share < 1, '0 to below 1')
    fields.require('text_field', field, bool(field), 'the name of a field')
