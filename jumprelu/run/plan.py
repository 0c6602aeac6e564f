"""Says what a run will take: memory, days, chip-hours; and what does not fit.

Takes the flags of `jumprelu train` and a topology, and prints a plan for one
layer or for several. Memory is by formula, at once and on any computer; with
--compile the TPU compiler is asked (package libtpu, a minute or more). Times
are by formula at a stated share of the chips' peak. --out writes all as JSON.

  jumprelu plan --recipe=paper --model=gemma2_2b --layer=12
      --sites=resid_post,mlp_out,attn_heads --mesh.tensor=2
      --stream.lm_sequences=64 --topology=v5e:4x4 --price_per_chip_hour=1.20
"""

import json
import math
import pathlib
import sys

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.run import main


def define_flags(flag_values: absl_flags.FlagValues) -> None:
  """Declares the plan's own flags and those of the config."""
  from jumprelu.planning import chips, plan
  from jumprelu.run import flags
  from jumprelu.training import config

  known = ', '.join(
      f'{chip.name}:{chip.slices[-1]}' for chip in chips.CHIPS.values()
  )
  for name, default, text in (
      ('topology', 'v5e:4x4', f'Chips and slice, up to {known}.'),
      ('layers', '', 'Layers, a job each: 0,5,12 or all; default: --layer.'),
      ('out', None, 'JSON file to write the plan to.'),
  ):
    absl_flags.DEFINE_string(name, default, text, flag_values=flag_values)
  absl_flags.DEFINE_float(
      'price_per_chip_hour', None, 'What a chip-hour costs.', lower_bound=0.0,
      flag_values=flag_values,
  )  # fmt: skip
  absl_flags.DEFINE_float(
      'utilisation', plan.UTILISATION, "Share of the chips' peak to count on.",
      lower_bound=0.001, upper_bound=1.0, flag_values=flag_values,
  )  # fmt: skip
  absl_flags.DEFINE_boolean(
      'compile', False, 'Ask the TPU compiler for the memory.',
      flag_values=flag_values,
  )  # fmt: skip
  flags.define(
      flag_values, config.resolve(), alternatives=config.other_recipes()
  )


def run(flag_values: absl_flags.FlagValues) -> None:
  """Plans and prints."""
  from jumprelu.planning import chips, plan, tpu_compile
  from jumprelu.run import flags
  from jumprelu.training import config

  resolved = flags.build(flag_values, config.resolve(), config.resolve)
  price = flag_values.price_per_chip_hour
  if price is not None and not math.isfinite(price):
    raise errors.UserError('--price_per_chip_hour must be a finite number')
  request = plan.Request(
      topology=chips.parse(flag_values.topology),
      layers=_layers(flag_values.layers, resolved.model),
      price_per_chip_hour=price,
      utilisation=flag_values.utilisation,
  )
  compiled = None
  if flag_values.compile:
    if not tpu_compile.available():
      raise errors.MissingInputError(
          '--compile needs the TPU compiler: pip install libtpu'
      )
    compiled = tpu_compile.compile_all(
        plan.highest(resolved, request), request.topology.name
    )
  found = plan.make_plan(resolved, request, compiled=compiled)
  print(plan.table(found))
  if flag_values.out:
    text = json.dumps(found, indent=2, allow_nan=False) + '\n'
    pathlib.Path(flag_values.out).write_text(text, 'utf-8')


def _layers(text: str, model: str) -> tuple[int, ...]:
  from jumprelu import lm

  count = lm.get_config(model).layers
  if text == 'all':
    return tuple(range(count))
  try:
    layers = tuple(int(part) for part in text.split(',') if part.strip())
  except ValueError:
    raise errors.UserError(
        f'--layers={text}: write numbers, 0,5,12, or all'
    ) from None
  wrong = [layer for layer in layers if not 0 <= layer < count]
  if wrong:
    raise errors.UserError(
        f'--layers={text}: {model} has layers 0 to {count - 1}'
    )
  return layers


if __name__ == '__main__':
  sys.exit(main.launch('plan'))
