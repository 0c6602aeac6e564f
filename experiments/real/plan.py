r"""Prints the real run's parts with their tokens, hours and bytes.

Hours are the operations of `jumprelu/planning/costs.py` over rates. Rates are
measured on this machine in about two minutes, or set by --gflops, which the
command prints. Epochs need --unique_tokens, the number of training tokens that
`jumprelu train` prints for --data.

  python -m experiments.real.plan --model=gemma-3-270m.gguf \
      --data=brown.jsonl,prose.jsonl
  python -m experiments.real.plan --model=gemma2_nano --data=stdlib --layer=2 \
      --gflops=lm=60,jumprelu=300,topk=150,batch_topk=120,gated=60,relu=60
"""

from collections.abc import Mapping, Sequence
import sys
from typing import Any, NamedTuple

from absl import flags

from experiments.real import options, suites
from jumprelu import errors
from jumprelu.run import flags as flags_lib
from jumprelu.run import main as main_lib

MAIN_FLAGS = ('model', 'data', 'gflops', 'unique_tokens')
EXTRA = 'train'

_LIMIT, _PART_LIMIT = 20.0, 2.0
_DTYPE_BYTES = 4  # The language model computes in float32 on a CPU.


class Cost(NamedTuple):
  """The cost of a store or part."""

  name: str
  members: int
  tokens: int
  hours: float
  # Bytes of a store; 0 for a part.
  bytes: int


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the command's flags."""
  options.define_flags(flag_values)
  flags.DEFINE_list(
      'gflops', [],
      'Rates in GFLOP per second, as in lm=60,jumprelu=300; measured if empty.',
      flag_values=flag_values,
  )  # fmt: skip
  flags_lib.define_integer(
      flag_values, 'unique_tokens', 0,
      'Training tokens of the text, for epochs.', lower_bound=0,
  )  # fmt: skip


def run(flag_values: flags.FlagValues) -> None:
  """Prints the plan."""
  scale = options.scale(flag_values)
  wanted = {'lm'} | {
      variant
      for part in suites.parts(scale)
      for variant in _resolve(part.config).variants
  }
  rates = _parse(flag_values.gflops, wanted)
  if not rates:
    rates = _measure(scale)
    spelt = ','.join(f'{k}={v / 1e9:.0f}' for k, v in sorted(rates.items()))
    print(f'measured: --gflops={spelt}')
  print(table(costs_of(scale, rates), unique_tokens=flag_values.unique_tokens))


def costs_of(scale: suites.Scale, rates: Mapping[str, float]) -> list[Cost]:
  """Returns the costs of all stores, then of all parts.

  Args:
    scale: The scale.
    rates: FLOP per second by variant, and of the language model as `lm`.
  """
  return [
      *(_store_cost(scale, store, rates) for store in suites.stores(scale)),
      *(_part_cost(part, rates) for part in suites.parts(scale)),
  ]


def sae_flops(part: suites.Part) -> float:
  """Returns the FLOP of a part's training, as dense products."""
  return sum(_by_variant(part).values())


def table(costs: Sequence[Cost], *, unique_tokens: int = 0) -> str:
  """Returns the costs as text, with the sums and what exceeds a limit."""
  lines = [
      f'{"store or part":<22} {"SAEs":>4} {"tokens":>11} {"epochs":>6}'
      f' {"hours":>6} {"GB":>6}'
  ]
  for cost in costs:
    epochs = f'{cost.tokens / unique_tokens:.1f}' if unique_tokens else '-'
    size = f'{cost.bytes / 1e9:.1f}' if cost.bytes else ''
    long = cost.hours > _PART_LIMIT
    lines.append(
        f'{cost.name:<22} {cost.members or "":>4} {cost.tokens:>11,}'
        f' {epochs:>6} {cost.hours:>6.2f} {size:>6}'
        + (f'  over {_PART_LIMIT:g} hours: resume it' if long else '')
    )
  hours = sum(cost.hours for cost in costs)
  members = sum(cost.members for cost in costs)
  size = sum(cost.bytes for cost in costs)
  lines.append(
      f'in all: {members} SAEs, {hours:.1f} hours (limit {_LIMIT:g}),'
      f' stores {size / 1e9:.1f} GB'
  )
  if hours > _LIMIT:
    tokens = max(cost.tokens for cost in costs)
    lines.append(
        f'too long: use about --tokens={int(tokens * _LIMIT / hours):_}, or'
        ' leave parts out'
    )
  return '\n'.join(lines)


def _store_cost(
    scale: suites.Scale, store: suites.Store, rates: Mapping[str, float]
) -> Cost:
  from jumprelu import lm
  from jumprelu.planning import costs
  from jumprelu.training import load_run, suite

  config = _resolve(suites.harvest_config(scale, store))
  model = lm.get_config(config.model)
  taps = suite.taps(load_run.make_suite(config))
  flops = costs.lm_flops(
      model,
      layer=config.layer,
      positions=config.corpus.sequence_length,
      sites=[tap.site for tap in taps],
  )
  tokens = config.blocks * config.stream.block_positions
  row = _DTYPE_BYTES * sum(model.d_site(tap.site) for tap in taps) + 1
  hours = tokens * flops / rates['lm'] / 3600
  return Cost(f'store {store.name}', 0, tokens, hours, tokens * row)


def _part_cost(part: suites.Part, rates: Mapping[str, float]) -> Cost:
  from jumprelu.training import config as config_lib

  config = _resolve(part.config)
  seconds = sum(
      flops / rates[variant] for variant, flops in _by_variant(part).items()
  )
  seconds += _eval_flops(config) / rates['lm']
  members = len(config_lib.members(config))
  return Cost(part.name, members, config.tokens, seconds / 3600, 0)


def _by_variant(part: suites.Part) -> dict[str, float]:
  """Returns the FLOP of a part's training by variant."""
  from jumprelu.planning import costs
  from jumprelu.training import load_run

  config = _resolve(part.config)
  flops: dict[str, float] = {}
  for group in load_run.make_suite(config):
    variant = group.sae.variant
    flops[variant] = flops.get(variant, 0.0) + (
        config.tokens * costs.member_flops(group) * len(group.members)
    )
  return flops


def _eval_flops(config: Any) -> float:
  """Returns the FLOP of a part's evaluations in the language model.

  Each member's losses need the layers after the splice and the logits again.
  """
  from jumprelu import lm
  from jumprelu.planning import costs
  from jumprelu.training import config as config_lib

  model = lm.get_config(config.model)
  layer = costs.layer_flops(model, config.corpus.sequence_length)
  logits = 2 * model.d_model * model.vocab
  first = 2 * config.eval.tokens * (config.layer + 1) * layer
  after = (model.layers - config.layer - 1) * layer + logits
  # The clean and the ablated passes are as costly as those of two members.
  passes = len(config_lib.members(config)) + 2
  return first + config.eval.delta_loss_tokens * passes * after


def _measure(scale: suites.Scale) -> dict[str, float]:
  from experiments.real import rates

  configs = [_resolve(part.config) for part in suites.parts(scale)]
  measured = rates.measure(configs)
  return measured | {rates.LM: rates.lm_rate(configs[0])}


def _parse(entries: Sequence[str], wanted: set[str]) -> dict[str, float]:
  """Returns the rates that --gflops sets, in FLOP per second.

  Raises:
    UserError: a rate is unknown, missing or not a positive number.
  """
  rates = {}
  for entry in entries:
    name, _, value = entry.partition('=')
    try:
      rates[name] = 1e9 * float(value)
    except ValueError:
      rates[name] = 0.0
    if name not in wanted or not 0 < rates[name] < float('inf'):
      raise errors.UserError(
          f'--gflops={entry}: must be NAME=RATE with a positive rate and a name'
          f' among {", ".join(sorted(wanted))}'
      )
  missing = sorted(wanted - set(rates))
  if rates and missing:
    raise errors.UserError(f'--gflops: no rate for {", ".join(missing)}')
  return rates


def _resolve(config: Mapping[str, Any]) -> Any:
  from jumprelu.training import config as config_lib

  return config_lib.resolve(config)


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.real.plan',
          sys.argv[1:],
      )
  )
