"""Plans: a run's memory, time and cost, estimated before it starts.

Memory is computed by formula (`costs.py`) or reported by the TPU compiler
(`tpu_compile.py`). Time is always computed by formula. It is the sum of two
parts: the FLOPs of a chip at a share of its peak rate, and the traffic between
chips at half of the link bandwidth. The compiler's own estimate of time is
shown but not used, because it counts a loop's body once and is negative for
programs with collectives.

A plan has one job (a training run) per layer, or per several layers. The SAEs
that a job trains together are a suite, and each of them is a member.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from typing import Any

from jumprelu import errors, lm, sharding
from jumprelu.files import dotted
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
  # If empty, the only layers are those of the config.
  layers: tuple[int, ...] = ()
  price_per_chip_hour: float | None = None
  # The assumed share of the chips' peak rate.
  utilisation: float = UTILISATION
  # The number of layers that a job trains at once; the last job may have fewer.
  layers_per_job: int = 1


def make_plan(
    config: config_lib.TrainConfig,
    request: Request,
    *,
    compiled: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Returns the plan of a config's jobs as plain values.

  Args:
    config: The run's config.
    request: The topology and further options.
    compiled: The result of `tpu_compile.compile_all` for `largest_job`, with at
      least the programs `TRAINING`. Its memory replaces that of the formula.

  Raises:
    UserError: The config and the topology do not fit each other.
  """
  top = largest_job(config, request)
  fits, memory = _memory(top, request.topology, compiled)
  jobs = [_job(job, request) for job in job_configs(config, request)]
  chip_hours = sum(job['chip_hours'] for job in jobs)
  price = request.price_per_chip_hour
  whole = _suite(top)
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
      'sae_count': sum(job['members'] for job in jobs),
      'groupings': list(_groupings(config, request)),
      'chip_hours': chip_hours,
      'days_one_after_the_other': sum(job['days'] for job in jobs),
      'cost': None if price is None else chip_hours * price,
  }


def largest_job(
    config: config_lib.TrainConfig, request: Request
) -> config_lib.TrainConfig:
  """Returns the config of the job that needs the most memory by formula."""
  mesh = _mesh(config, request.topology)
  return max(
      job_configs(config, request),
      key=lambda job: (costs.memory(job, mesh).total, max(job.read_layers)),
  )


def job_configs(
    config: config_lib.TrainConfig, request: Request
) -> list[config_lib.TrainConfig]:
  """Returns the config of each job, in the order of layers."""
  layers = sorted(request.layers or config.read_layers)
  size = request.layers_per_job
  if not request.layers:
    size = len(layers)
  jobs = []
  for start in range(0, len(layers), size):
    part = tuple(layers[start : start + size])
    if len(part) == 1:
      jobs.append(dataclasses.replace(config, layer=part[0], layers=()))
    else:
      jobs.append(dataclasses.replace(config, layers=part))
  return jobs


def _groupings(
    config: config_lib.TrainConfig, request: Request
) -> Iterator[dict[str, Any]]:
  """Yields the cost of each number of layers per job, if several are possible.

  Among numbers with equally many jobs, only the smallest is yielded, because it
  needs the least memory.
  """
  layers = tuple(sorted(set(request.layers)))
  seen = set()
  for size in range(1, len(layers) + 1) if len(layers) > 1 else ():
    if (jobs := -(-len(layers) // size)) in seen:
      continue
    seen.add(jobs)
    grouped = dataclasses.replace(request, layers=layers, layers_per_job=size)
    fits, memory = _memory(largest_job(config, grouped), request.topology, None)
    hours = sum(
        _job(job, grouped)['chip_hours'] for job in job_configs(config, grouped)
    )
    yield {
        'layers_per_job': size,
        'jobs': jobs,
        'chip_hours': hours,
        'peak_gib': memory['peak_gib'],
        'fits': fits,
    }


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
  """Returns the entries of a plan about the suite of one job."""
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
  """Returns a plan's entry about one job."""
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
      'layers': list(config.read_layers),
      'members': members,
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
