r"""Estimates a run's memory, time and cost before you rent hardware.

Accepts the flags of `jumprelu train` and a topology, and prints a plan for one
layer or several. If the run does not fit into the chips' memory, the plan
lists changes that would make it fit. The memory is computed by a formula,
instantly and on any computer. With --compile, the TPU compiler computes it
instead, which needs the package libtpu and a minute or more. Times are computed
by a formula that assumes the share --utilisation of the chips' peak FLOP/s.

  jumprelu plan --recipe=paper --model=gemma2_2b --layer=12 \
      --sites=resid_post,mlp_out,attn_heads --mesh.tensor=2 \
      --stream.lm_sequences=64 --topology=v5e:4x4 --price_per_chip_hour=1.20
"""

import math
import sys

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.files import json_files
from jumprelu.run import main

# The config's list of layers is that of one job; --layers names those of all.
WITHOUT = ('layers',)
MAIN_FLAGS = (
    'topology',
    'layers',
    'layers_per_job',
    'price_per_chip_hour',
    'utilisation',
    'compile',
    'out',
    'recipe',
    'model',
    'layer',
    'sites',
    'widths',
    'tokens',
    'mesh.tensor',
    'stream.lm_sequences',
)


def define_flags(flag_values: absl_flags.FlagValues) -> None:
  """Declares the flags of the plan and those of the training config."""
  from jumprelu.planning import chips, plan
  from jumprelu.run import flags
  from jumprelu.training import config

  known = ', '.join(
      f'{chip.name}:{chip.slices[-1]}' for chip in chips.CHIPS.values()
  )
  for name, default, text in (
      (
          'topology',
          'v5e:4x4',
          f'TPU type and slice; the usual ones go up to {known}.',
      ),
      (
          'layers',
          '',
          'Layers to train: 0,5,12 or all (default: --layer).',
      ),
      ('out', None, 'Output JSON file with the whole plan.'),
  ):
    absl_flags.DEFINE_string(name, default, text, flag_values=flag_values)
  absl_flags.DEFINE_float(
      'price_per_chip_hour', None, 'Price of a chip-hour, in any currency.',
      lower_bound=0.0, flag_values=flag_values,
  )  # fmt: skip
  absl_flags.DEFINE_float(
      'utilisation', plan.UTILISATION,
      "Assumed share of the chips' peak FLOP/s.", lower_bound=0.001,
      upper_bound=1.0, flag_values=flag_values,
  )  # fmt: skip
  absl_flags.DEFINE_boolean(
      'compile', False, 'Compute the memory with the TPU compiler.',
      flag_values=flag_values,
  )  # fmt: skip
  flags.define_integer(
      flag_values,
      'layers_per_job',
      1,
      'Layers that a job trains at once.',
      lower_bound=1,
  )
  flags.define(
      flag_values,
      config.resolve(),
      alternatives=config.other_recipes(),
      without=WITHOUT,
  )


def run(flag_values: absl_flags.FlagValues) -> None:
  """Prints the plan, and writes it as JSON if --out is set."""
  from jumprelu.planning import chips, plan, plan_table, tpu_compile
  from jumprelu.run import flags
  from jumprelu.training import config

  resolved = flags.build(
      flag_values, config.resolve(), config.resolve, without=WITHOUT
  )
  price = flag_values.price_per_chip_hour
  if price is not None and not math.isfinite(price):
    raise errors.UserError('--price_per_chip_hour must be a finite number')
  request = plan.Request(
      topology=chips.parse(flag_values.topology),
      layers=_layers(flag_values.layers, resolved.model),
      layers_per_job=flag_values.layers_per_job,
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
        plan.largest_job(resolved, request), request.topology.name
    )
  result = plan.make_plan(resolved, request, compiled=compiled)
  print(plan_table.table(result))
  if flag_values.out:
    json_files.write_json(flag_values.out, result)


def _layers(text: str, model: str) -> tuple[int, ...]:
  """Returns the layers in --layers; none if it is empty.

  Raises:
    UserError: the text is not a list of layers of the model.
  """
  from jumprelu import lm

  count = lm.get_config(model).layers
  if text == 'all':
    return tuple(range(count))
  try:
    layers = tuple(int(part) for part in text.split(',') if part.strip())
  except ValueError:
    raise errors.UserError(
        f'--layers={text}: must be numbers, as in 0,5,12, or all'
    ) from None
  invalid = [layer for layer in layers if not 0 <= layer < count]
  if invalid:
    raise errors.UserError(
        f'--layers={text}: {model} has layers 0 to {count - 1}'
    )
  return layers


if __name__ == '__main__':
  sys.exit(main.launch('plan'))
