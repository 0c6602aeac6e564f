"""Plans: a run's memory, time and cost, estimated before it starts.

Memory is computed by formula (`costs.py`) or reported by the TPU compiler
(`tpu_compile.py`). Time is always computed by formula. It is the sum of two
parts: the FLOPs of a chip at a share of its peak rate, and the traffic between
chips at half of the link bandwidth. The compiler's own estimate of time is
shown but not used, because it counts a loop's body once and is negative for
programs with collectives.

A plan has one job (a training run) per layer. The SAEs that a job trains
together are a suite, and each of them is a member.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from typing import Any

from jumprelu import errors, lm, sharding
from jumprelu.files import dotted, wording
from jumprelu.planning import chips, costs
from jumprelu.training import config as config_lib
from jumprelu.training import load_run, suite

# The share of a chip's memory that programs can use. The runtime reserves the
# rest.
_USABLE = 0.97

# The share of the peak rate that Gemma Scope's largest SAEs reached (arXiv
# 2408.05147, section 3.3).
UTILISATION = 0.508

_GIB = 2**30
_DAY = 86_400
_HOUR = 3600


@dataclasses.dataclass(frozen=True)
class Request:
  """The options of a plan besides the run's config."""

  topology: chips.Topology
  # One job per layer. If empty, the only layer is that of the config.
  layers: tuple[int, ...] = ()
  price_per_chip_hour: float | None = None
  # The assumed share of the chips' peak rate.
  utilisation: float = UTILISATION


def make_plan(
    config: config_lib.TrainConfig,
    request: Request,
    *,
    compiled: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Returns the plan of a config's jobs, one per layer, as plain values.

  Args:
    config: The run's config.
    request: The topology and further options.
    compiled: The result of `tpu_compile.compile_all` for the highest layer,
      with at least the programs `TRAINING`. Its memory replaces that of the
      formula.

  Raises:
    UserError: The config and the topology do not fit each other.
  """
  layers = request.layers or (config.layer,)
  top = highest(config, request)
  fits, memory = _memory(top, request.topology, compiled)
  jobs = [
      _job(dataclasses.replace(config, layer=layer), request)
      for layer in layers
  ]
  chip_hours = sum(job['chip_hours'] for job in jobs)
  price = request.price_per_chip_hour
  whole = _suite(config)
  return {
      'model': config.model,
      'topology': request.topology.name,
      'chips': request.topology.chips,
      'mesh': _mesh(config, request.topology).shape,
      'utilisation': request.utilisation,
      **whole,
      'memory': memory,
      'fits': fits,
      'changes': [] if fits else list(_changes(top, request.topology)),
      'jobs': jobs,
      'sae_count': whole['members'] * len(jobs),
      'chip_hours': chip_hours,
      'days_one_after_the_other': sum(job['days'] for job in jobs),
      'cost': None if price is None else chip_hours * price,
  }


def highest(
    config: config_lib.TrainConfig, request: Request
) -> config_lib.TrainConfig:
  """Returns the config of the highest layer, which needs the most memory."""
  layer = max(request.layers or (config.layer,))
  return dataclasses.replace(config, layer=layer)


def _mesh(
    config: config_lib.TrainConfig, topology: chips.Topology
) -> sharding.MeshShape:
  """Returns the shape of the mesh that `train` would make on the topology.

  Raises:
    UserError: The mesh does not use all chips, or its `data` axis does not
      divide the stream's shards.
  """
  tensor = config.mesh.tensor
  of_all = f'the {topology.chips} chips of {topology.name}'
  if topology.chips % tensor:
    divisors = [n for n in range(1, tensor) if topology.chips % n == 0]
    raise errors.UserError(
        f'mesh.tensor={tensor} does not divide {of_all}; use one of'
        f' {", ".join(map(str, divisors))}'
    )
  data = config.mesh.data or topology.chips // tensor
  if data * tensor != topology.chips:
    raise errors.UserError(
        f'mesh.data={data} x mesh.tensor={tensor} does not use {of_all}; use'
        f' mesh.data={topology.chips // tensor}, or 0 to compute it'
    )
  config.stream.check_data_axis(data)
  return sharding.MeshShape(data, tensor)


def _suite(config: config_lib.TrainConfig) -> dict[str, Any]:
  """Returns the entries of a plan about the suite of one layer."""
  groups = load_run.make_suite(config)
  return {
      'members': sum(len(group.members) for group in groups),
      'sae_parameters': sum(
          len(group.members) * costs.member_params(group) for group in groups
      ),
      'tokens': config.tokens,
      'steps': config.steps,
  }


def _memory(
    config: config_lib.TrainConfig,
    topology: chips.Topology,
    compiled: Mapping[str, Any] | None,
) -> tuple[bool, dict[str, Any]]:
  """Returns whether the run fits, and a plan's entry about a chip's memory."""
  memory = costs.memory(config, _mesh(config, topology))
  parts = {name: value / _GIB for name, value in memory._asdict().items()}
  total, source = memory.total, 'formula'
  reports = {}
  if compiled:
    # The compiler's peak covers only the arrays of one program. The weights of
    # the language model also stay in memory during a segment of training steps,
    # and the training state also stays while a block is made.
    segment, block = compiled['segment'], compiled['block']
    total = max(
        segment.peak_bytes + memory.weights, block.peak_bytes + memory.state
    )
    source = 'TPU compiler'
    reports = {
        name: {
            'peak_gib': program.peak_bytes / _GIB,
            'optimal_seconds': program.optimal_seconds,
        }
        for name, program in compiled.items()
    }
  usable = _USABLE * topology.chip.hbm_bytes
  return total <= usable, {
      'source': source,
      'peak_gib': total / _GIB,
      'usable_gib': usable / _GIB,
      'formula_gib': parts,
      'compiler': reports,
  }


def _job(config: config_lib.TrainConfig, request: Request) -> dict[str, Any]:
  """Returns a plan's entry about the job of one layer."""
  topology, batch = request.topology, config.stream.batch
  chip, mesh = topology.chip, _mesh(config, topology)
  groups = load_run.make_suite(config)
  model = lm.get_config(config.model)
  taps = sorted({tap for group in groups for tap in group.reads.targets})
  top = max(tap.layer for tap in taps)
  lm_flops = costs.lm_flops(
      model,
      layer=top,
      positions=config.corpus.sequence_length,
      sites=[tap.site for tap in taps if tap.layer == top],
  )
  sae_flops = sum(costs.member_flops(g) * len(g.members) for g in groups)
  members = sum(len(group.members) for group in groups)
  rate = chip.flops * request.utilisation
  lm_seconds = batch * lm_flops / topology.chips / rate
  sae_seconds = costs.step_flops(groups, mesh, batch) / rate
  traffic = costs.step_traffic(groups, mesh, batch)
  between = traffic / (chip.link_bandwidth / 2)
  step = lm_seconds + sae_seconds + between
  days = config.steps * step / _DAY
  return {
      'layer': config.layer,
      'lm_flops_per_token': lm_flops,
      'sae_flops_per_token': sae_flops,
      # The number of members that cost as much as the language model.
      'break_even_members': lm_flops / (sae_flops / members),
      'seconds_per_step': step,
      'lm_share': lm_seconds / step,
      'sae_share': sae_seconds / step,
      'link_share': between / step,
      'days': days,
      'chip_hours': config.steps * step / _HOUR * topology.chips,
      'layouts': {g.name: suite.layout_of(g, mesh).name for g in groups},
  }


def _changes(
    config: config_lib.TrainConfig, topology: chips.Topology
) -> Iterator[str]:
  """Yields, for each kind of change, the smallest that fits by formula."""
  kinds = set()
  for kind, words, other, candidate in _candidates(config, topology):
    if kind in kinds:
      continue
    try:
      if _memory(other, candidate, None)[0]:
        kinds.add(kind)
        yield words
    except errors.UserError:
      continue  # The changed config does not fit the topology.


def _candidates(
    config: config_lib.TrainConfig, topology: chips.Topology
) -> Iterator[tuple[str, str, config_lib.TrainConfig, chips.Topology]]:
  """Yields possible changes: (kind, description, config, topology).

  Changes of the same kind are in ascending order.
  """
  # A fixed `data` axis would not fit another tensor axis or slice.
  automatic = ' --mesh.data=0' if config.mesh.data else ''
  tensor = config.mesh.tensor * 2
  while topology.chips % tensor == 0:
    changes = {'mesh.tensor': tensor, 'mesh.data': 0}
    other = dotted.replace(config, changes)
    yield 'tensor', f'--mesh.tensor={tensor}{automatic}', other, topology
    tensor *= 2
  positions = config.stream.block_positions
  for smaller in (positions // 2, positions // 4, positions // 8):
    try:
      other = dotted.replace(config, {'stream.block_positions': smaller})
    except errors.UserError:
      break  # The config would be invalid.
    words = f'--stream.block_positions={smaller}'
    yield 'block', words, other, topology
  for axis in ('sparsity_coefficients', 'target_l0', 'widths', 'sites'):
    values: Sequence[Any] = getattr(config, axis)
    for count in range(len(values) - 1, 0, -1):
      try:
        other = dotted.replace(config, {axis: values[:count]})
      except errors.UserError:
        break
      words = f'{count} of the {len(values)} {axis}, the others in another job'
      yield axis, words, other, topology
  larger = topology.larger()
  while larger is not None:
    words = f'--topology={larger.name}{automatic}'
    other = dotted.replace(config, {'mesh.data': 0})
    data = larger.chips // config.mesh.tensor
    if config.stream.lm_sequences % data:
      # Each chip along `data` needs at least one sequence per forward pass.
      other = dotted.replace(other, {'stream.lm_sequences': data})
      words += f' --stream.lm_sequences={data}'
    yield 'topology', words, other, larger
    larger = larger.larger()


def table(plan: Mapping[str, Any]) -> str:
  """Returns the plan as text for the terminal."""
  memory, jobs = plan['memory'], plan['jobs']
  parts = ', '.join(f'{k} {v:.2f}' for k, v in memory['formula_gib'].items())
  shape = ' x '.join(f'{v} {k}' for k, v in plan['mesh'].items())
  rows = [
      (
          'suite',
          f'{wording.count(plan["members"], "SAE")} per layer,'
          f' {wording.count(len(jobs), "layer")}',
      ),
      ('SAE parameters', f'{plan["sae_parameters"]:,} per layer'),
      ('topology', f'{plan["topology"]}, {plan["chips"]} chips, {shape}'),
      (
          'memory per chip',
          f'{memory["peak_gib"]:.2f} of {memory["usable_gib"]:.2f} GiB'
          f' ({memory["source"]})',
      ),
      ('  by formula', f'{parts} GiB'),
  ]
  for name, report in memory['compiler'].items():
    seconds = report['optimal_seconds']
    words = f'{seconds:.3f} s' if seconds > 0 else 'unusable (not positive)'
    rows.append(
        (
            f'  {name}',
            f'{report["peak_gib"]:.2f} GiB; estimate of time {words}',
        )
    )
  rows += [
      ('fits', 'yes' if plan['fits'] else 'NO'),
      ('tokens, steps', f'{plan["tokens"]:,}, {plan["steps"]:,} per layer'),
  ]
  text = '\n'.join(f'{name:<16} {value}' for name, value in rows)
  for change in plan['changes'][:4]:
    text += f'\n  would fit with {change}'
  if not plan['fits'] and not plan['changes']:
    text += (
        '\n  no single change is enough; combine a larger slice, a larger'
        ' --mesh.tensor and fewer SAEs'
    )
  text += '\n\n' + '\n'.join(_job_lines(jobs))
  cost = '' if plan['cost'] is None else f', cost {plan["cost"]:,.0f}'
  return text + (
      f'\n\n{plan["sae_count"]} SAEs: {plan["chip_hours"]:,.0f} chip-hours'
      f'{cost}; {plan["days_one_after_the_other"]:,.2f} days on one slice, one'
      ' layer after another.\nTimes are computed, not measured. They assume'
      f' {plan["utilisation"]:.1%} of the peak rate.'
  )


def _job_lines(jobs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
  """Yields the lines of the table of jobs, with an explanation below it."""
  yield (
      'layer  LM GF/tok  SAE GF/tok  break-even  ms/step   LM  SAE links'
      '      days  chip-h'
  )
  for job in jobs:
    yield (
        f'{job["layer"]:5d}  {job["lm_flops_per_token"] / 1e9:9.2f}'
        f'  {job["sae_flops_per_token"] / 1e9:10.2f}'
        f'  {job["break_even_members"]:10.1f}'
        f'  {1e3 * job["seconds_per_step"]:7.2f}'
        f' {job["lm_share"]:4.0%} {job["sae_share"]:4.0%}'
        f' {job["link_share"]:5.0%}  {job["days"]:8.2f}'
        f'  {job["chip_hours"]:6.0f}'
    )
  yield (
      'GF/tok: GFLOP per token. break-even: the number of SAEs that cost as'
      ' much as the LM.\nLM, SAE, links: shares of the step time (links:'
      ' traffic between chips).'
  )
