"""The flags that name the scale of the real run, for its plan and its driver."""

import dataclasses

from absl import flags

from experiments.real import suites
from jumprelu import errors
from jumprelu.run import flags as flags_lib


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags of the scale."""
  flags.DEFINE_string(
      'model', None, 'Language model: FILE.gguf, a folder or a known name.',
      flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_string(
      'data', None, 'Text, such as brown.jsonl,prose.jsonl.',
      flag_values=flag_values,
  )  # fmt: skip
  default = suites.gemma3_270m('', '')
  for name, text in (
      ('layer', 'Layer whose activations are read.'),
      ('tokens', 'Positions of the parts of the residual stream.'),
      ('site_tokens', 'Positions of the parts of other sites.'),
      ('width', 'Latents of the headline.'),
      ('narrow', 'Latents of other sites and of Gated and ReLU SAEs.'),
  ):
    flags_lib.define_integer(
        flag_values, name, getattr(default, name), text, lower_bound=0
    )
  flags.DEFINE_list(
      'config', [],
      'Further config fields of all parts, as in stream.batch=512.',
      flag_values=flag_values,
  )  # fmt: skip


def scale(flag_values: flags.FlagValues) -> suites.Scale:
  """Returns the scale that the flags name.

  Raises:
    UserError: --model or --data is missing, or --config is invalid.
  """
  missing = [n for n in ('model', 'data') if not flag_values[n].value]
  if missing:
    raise errors.UserError('; '.join(f'--{name} is needed' for name in missing))
  changes = {
      name: flag_values[name].value
      for name in ('layer', 'tokens', 'site_tokens', 'width', 'narrow')
  }
  made = suites.gemma3_270m(flag_values.model, flag_values.data, **changes)
  ladder = tuple(w for w in made.ladder if w < made.width)
  base = dict(made.base)
  for entry in flag_values.config:
    name, equals, value = entry.partition('=')
    if not (name and equals):
      raise errors.UserError(f'--config={entry}: must be FIELD=VALUE')
    base[name] = _value(value)
  return dataclasses.replace(made, ladder=ladder, base=base)


def _value(text: str) -> int | float | str:
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      continue
  return text
