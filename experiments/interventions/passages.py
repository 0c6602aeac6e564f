"""Prompts from held-out text, and means with errors."""

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any, NamedTuple

from absl import flags
import numpy as np

from jumprelu import errors


class Mean(NamedTuple):
  """A mean over prompts and its standard error."""

  value: float
  stderr: float


def prompts(
    features: pathlib.Path, *, count: int, length: int, bos: int
) -> list[list[int]]:
  """Returns consecutive windows of the passages of a folder of features.

  Args:
    features: The folder, which `jumprelu features` wrote.
    count: The number of prompts.
    length: The number of tokens of each, without BOS.
    bos: The id of BOS, which each prompt begins with.

  Raises:
    UserError: The passages are too short.
  """
  from jumprelu.features import reading

  passages = reading.read_texts(features)['tokens'].to_pylist()
  windows = [
      [bos, *passage[start : start + length]]
      for start in range(0, max(map(len, passages)), length)
      for passage in passages
      if start + length <= len(passage)
      and bos not in passage[start : start + length]
  ]
  if len(windows) < count:
    raise errors.UserError(
        f'{features}: {len(windows)} windows of {length} tokens, {count} are'
        ' needed; collect features with more --features.texts'
    )
  return windows[:count]


def mean(values: Any) -> Mean:
  """Returns the mean of a number per prompt."""
  values = np.asarray(values, np.float64)
  error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
  return Mean(float(values.mean()), float(error))


def define_flags(flag_values: flags.FlagValues, *, prompts: int) -> None:
  """Declares the flags of an experiment with this number of prompts."""
  for name, meaning in (
      ('release', 'The release.'),
      ('features', 'The folder of features of the release.'),
      ('member', 'The path of the SAE.'),
      ('out', 'ROWS.jsonl to write.'),
  ):
    flags.DEFINE_string(name, None, meaning, flag_values=flag_values)
  flags.DEFINE_integer(
      'prompts',
      prompts,
      'The number of prompts.',
      lower_bound=1,
      flag_values=flag_values,
  )


def numbers(flag: str, texts: Sequence[str]) -> list[int]:
  """Returns whole numbers of a flag, at least one."""
  try:
    values = [int(text) for text in texts]
  except ValueError:
    values = []
  if not values:
    raise errors.UserError(
        f'--{flag}={",".join(texts)}: write whole numbers, with commas'
    )
  return values


def load(
    flag_values: flags.FlagValues, *, length: int
) -> tuple[Any, Any, list[list[int]]]:
  """Returns the SAE, its language model, and prompts of `length` tokens."""
  import jumprelu

  missing = [
      f'--{name}'
      for name in ('release', 'features', 'member')
      if not flag_values[name].value
  ]
  if missing:
    raise errors.UserError(f'{" and ".join(missing)}: needed')
  sae = jumprelu.load(flag_values.release)[flag_values.member]
  model = sae.load_lm()
  texts = prompts(
      pathlib.Path(flag_values.features),
      count=flag_values.prompts,
      length=length,
      bos=model.bos,
  )
  return sae, model, texts


def write(rows: Sequence[Mapping[str, Any]], out: str | None) -> None:
  """Writes the rows as JSON lines, if a file is named."""
  if out:
    text = ''.join(json.dumps(row) + '\n' for row in rows)
    pathlib.Path(out).write_text(text, encoding='utf-8')
