"""The flags that complete the origins of published SAEs."""

from typing import Any

from absl import flags as absl_flags


def define(fv: absl_flags.FlagValues) -> None:
  """Declares --layer, --site and --input_gain."""
  from jumprelu.run import flags

  needed = 'only needed if their folder does not name it.'
  flags.define_integer(fv, 'layer', None, f'Layer of published SAEs; {needed}')
  absl_flags.DEFINE_string(
      'site', None, f'Site of published SAEs; {needed}', flag_values=fv
  )
  absl_flags.DEFINE_boolean(
      'input_gain',
      None,
      "Whether a published transcoder's input includes the RMSNorm gain; only"
      ' needed if neither its folder nor its config implies it.',
      flag_values=fv,
  )


def origin(fv: absl_flags.FlagValues) -> Any:
  """Returns the values of these flags and of --model as an `Origin`."""
  from jumprelu.release import formats

  return formats.Origin(fv.model, fv.layer, fv.site, fv.input_gain)
