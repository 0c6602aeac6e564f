"""The programs of a run, compiled for a TPU topology without TPUs.

The TPU compiler (the package `libtpu`) needs no TPU, but runs on Linux only. It
rejects programs that a TPU cannot run. For the others it reports the memory per
chip. It also estimates the time, but poorly, because it counts the body of a
loop only once and is negative for programs with collectives. The collectives
and host transfers are parsed from the text of the compiled program.

The compiled functions are those that `train` and `evaluate` call. Their
arguments are abstract, so that nothing is allocated.

`compile_all` compiles in a process of its own, because JAX and libtpu read
`ENVIRONMENT` when they are imported.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

from jax.sharding import Mesh

from jumprelu import errors
from jumprelu.training import config as config_lib

# The programs of a run are the functions of these names in `abstract_job`.
PROGRAMS = ('block', 'segment', 'clean', 'sums', 'reconstruct', 'losses')
TRAINING = PROGRAMS[:2]
EVALUATION = PROGRAMS[2:]

# The environment variables of the process that compiles.
ENVIRONMENT = {
    # libtpu would wait for a metadata server, which only TPU VMs have.
    'TPU_SKIP_MDS_QUERY': '1',
    'JAX_PLATFORMS': 'cpu',
    # Other processes may use libtpu at the same time, because compiling does
    # not open a TPU.
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    # Without the cache, because `_describe` needs the dumped text, and a cached
    # program dumps none.
    'JAX_ENABLE_COMPILATION_CACHE': 'false',
}

# The size of an element of each HLO type.
_BYTES = {
    'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 's16': 2, 'u16': 2,
    'f32': 4, 's32': 4, 'u32': 4, 'f64': 8, 's64': 8, 'u64': 8,
}  # fmt: skip
_KINDS = (
    'all-gather',
    'all-reduce',
    'all-to-all',
    'collective-permute',
    'reduce-scatter',
)
_COLLECTIVE = re.compile(
    r' = (?P<result>\(.*?\)|\S+) (?P<kind>' + '|'.join(_KINDS) + r')'
    r'(?P<start>-start)?\('
)
_ARRAY = re.compile(r'\b(\w+)\[([\d,]*)\]')
# Operations that transfer data, and custom calls that name the host or a
# callback.
_TRANSFER = re.compile(
    r' = .* (infeed|outfeed|send|recv|copy-to-host)(-start|-done)?\('
    r'|custom_call_target="[^"]*(callback|[Hh]ost)[^"]*"'
)


class Collective(NamedTuple):
  """One collective of a program, with its result on each device."""

  # One of `_KINDS`.
  kind: str
  # The largest array of the result in HLO's notation, e.g. f32[4096,2304].
  largest: str
  # The bytes of all arrays of the result.
  bytes: int


@dataclasses.dataclass(frozen=True)
class Program:
  """The compiler's report on one program, per chip."""

  name: str
  argument_bytes: int
  temporary_bytes: int
  # Arguments, results outside the arguments' memory, and temporaries.
  peak_bytes: int
  # These three are the compiler's estimates. They count one iteration of each
  # loop. The time of a program with collectives is negative and meaningless.
  flops: float
  bytes_accessed: float
  optimal_seconds: float
  collectives: tuple[Collective, ...]
  # The lines of `host_transfers`.
  host_transfers: tuple[str, ...]


def available() -> bool:
  """Returns whether the TPU compiler is installed."""
  return importlib.util.find_spec('libtpu') is not None


def compile_all(
    config: config_lib.TrainConfig,
    topology: str,
    *,
    programs: Iterable[str] = TRAINING,
) -> dict[str, Program]:
  """Returns reports on programs of `config`, compiled in a subprocess.

  Args:
    config: The run's config.
    topology: The name of the topology, such as `v5e:4x4`.
    programs: The programs to compile, of `PROGRAMS`.

  Returns:
    {name of a program: its report}.

  Raises:
    UserError: The subprocess fails, for example because a program needs too
      much memory. The message has one line of the error.
  """
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / 'programs.json'
    done = subprocess.run(
        [
            sys.executable,
            '-P',
            '-m',
            'jumprelu.planning.tpu_compile',
            topology,
            out,
        ]
        + list(programs),
        input=config_lib.to_json(config),
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
      raise errors.UserError(
          f'{topology}: the TPU compiler fails: {_error_line(done.stderr)}'
      )
    described = json.loads(out.read_text('utf-8'))
  return {name: _from_json(fields) for name, fields in described.items()}


def _error_line(stderr: str) -> str:
  """Returns the last line that names an error, or else the last line."""
  lines = stderr.strip().splitlines() or ['no message']
  named = [line for line in lines if re.match(r'[\w.]+Error: ', line)]
  return (named or lines)[-1]


def _from_json(fields: dict[str, Any]) -> Program:
  """Returns a program from the JSON of its `dataclasses.asdict`."""
  collectives = tuple(Collective(*values) for values in fields['collectives'])
  transfers = tuple(fields['host_transfers'])
  return Program(
      **fields | {'collectives': collectives, 'host_transfers': transfers}
  )


def lowered(
    config: config_lib.TrainConfig, mesh: Mesh, *, programs: Iterable[str]
) -> Iterator[tuple[str, Any]]:
  """Yields the name of each program and the program, lowered for the mesh."""
  from jumprelu.planning import abstract_job

  job = abstract_job.make(config, mesh)
  for name in programs:
    yield name, getattr(abstract_job, name)(job)


def _describe(name: str, program: Any, folder: pathlib.Path) -> Program:
  """Returns the report on a lowered program, after compiling it.

  The compiler dumps the program's text to `folder`. The report is made from
  that file, because `compiled.as_text()` fails for chips with SparseCores
  ("async-update instruction should have 1 operands"): their programs read the
  embedding asynchronously.
  """
  compiled = program.compile(
      compiler_options={
          'xla_dump_to': str(folder),
          'xla_dump_hlo_as_text': True,
      }
  )
  memory = compiled.memory_analysis()
  cost = compiled.cost_analysis()
  (dump,) = folder.glob('*.after_optimizations.txt')
  text = dump.read_text('utf-8')
  return Program(
      name=name,
      argument_bytes=memory.argument_size_in_bytes,
      temporary_bytes=memory.temp_size_in_bytes,
      peak_bytes=memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      - memory.alias_size_in_bytes
      + memory.temp_size_in_bytes,
      flops=cost.get('flops', 0.0),
      bytes_accessed=cost.get('bytes accessed', 0.0),
      optimal_seconds=cost.get('optimal_seconds', 0.0),
      collectives=collectives(text),
      host_transfers=host_transfers(text),
  )


def _main(topology: str, out: str, *programs: str) -> None:
  """Compiles programs of the config on stdin and writes their reports to `out`.

  `out` is a JSON file, {name: fields of `Program`}. The text of each program is
  dumped to a folder next to it.
  """
  from jax.experimental import topologies

  from jumprelu import sharding

  config = config_lib.from_json(sys.stdin.read())
  tpus = topologies.get_topology_desc(topology_name=topology, platform='tpu')
  mesh = sharding.make_mesh(config.mesh, tpus.devices)
  path = pathlib.Path(out)
  described = {
      name: dataclasses.asdict(_describe(name, program, path.parent / name))
      for name, program in lowered(config, mesh, programs=programs)
  }
  path.write_text(json.dumps(described), 'utf-8')


def collectives(text: str) -> tuple[Collective, ...]:
  """Returns the collectives of a compiled module's text, largest first.

  Asynchronous collectives are those of their start operations.
  """
  results = []
  for match in _COLLECTIVE.finditer(text):
    result, kind = match['result'], match['kind']
    # The start of an all-reduce has the results of the all-reduce. Other starts
    # have a tuple (operands, results, ...).
    if match['start'] and kind != 'all-reduce':
      result = _elements(result)[1]
    arrays = [
        (math.prod(map(int, filter(None, shape.split(',')))) * _BYTES[dtype],
         f'{dtype}[{shape}]')
        for dtype, shape in _ARRAY.findall(result)
        if dtype in _BYTES
    ]  # fmt: skip
    size = sum(size for size, _ in arrays)
    results.append(Collective(kind, max(arrays)[1], size))
  return tuple(sorted(results, key=lambda c: -c.bytes))


def _elements(shape: str) -> list[str]:
  """Returns the elements of a tuple's shape; elements may be tuples."""
  elements, depth = [''], 0
  for character in shape[1:-1]:
    depth += (character in '([{') - (character in ')]}')
    if character == ',' and not depth:
      elements.append('')
    else:
      elements[-1] += character
  return elements


def host_transfers(text: str) -> tuple[str, ...]:
  """Returns the lines of a module's text that wait for the host, shortened."""
  return tuple(
      line.strip()[:200] for line in text.splitlines() if _TRANSFER.search(line)
  )


if __name__ == '__main__':
  _main(*sys.argv[1:])
