"""Config of the corpus: how text is read, packed and cached."""

import dataclasses
from typing import Literal

from jumprelu.errors import UserError


def _field(default, help_text: str):
  return dataclasses.field(default=default, metadata={'help': help_text})


@dataclasses.dataclass(frozen=True)
class Config:
  """The conversion of text to rows of tokens; --data names the text."""

  sequence_length: int = _field(256, 'Tokens per row, BOS included.')
  held_out_percent: int = _field(
      10, 'Percentage of documents held out for evaluation, by hash.'
  )
  cache_dir: str = _field(
      '',
      'Folder of token caches; default $JUMPRELU_CACHE or ~/.cache/jumprelu.',
  )
  data_dir: str = _field('', "Folder of TFDS sets; default is TFDS' own.")
  tfds_split: str = _field('train', 'Split of the TFDS set to read.')
  text_field: str = _field(
      'text', 'Field of JSONL, Parquet and TFDS that holds the text.'
  )
  max_tokens: int = _field(
      0, 'Stop after the document that reaches this many tokens; 0 reads all.'
  )
  wrap: Literal['none', 'chat'] = _field(
      'none',
      "Tokens added around a document: none, or Gemma's chat format for"
      ' instruction-tuned models, whose tokens before the text are not'
      ' trained on.',
  )
  seed: int = _field(0, 'Seed of the order in which rows are visited.')

  def __post_init__(self):
    if not 2 <= self.sequence_length <= 2**20:
      raise UserError(
          f'sequence_length={self.sequence_length}: must be 2 to {2**20}'
      )
    if not 1 <= self.held_out_percent <= 90:
      raise UserError(
          f'held_out_percent={self.held_out_percent}: must be 1 to 90'
      )
    if self.max_tokens < 0:
      raise UserError(f'max_tokens={self.max_tokens}: must be 0 (all) or more')
    if not 0 <= self.seed < 2**32:
      raise UserError(f'seed={self.seed}: must be 0 to {2**32 - 1}')
    if not self.text_field:
      raise UserError(
          'text_field is empty: set it to the field that holds the text'
      )
