"""The machine of a report: its cores, CPU and instruction sets."""

import os
import pathlib

from jumprelu.ops import native

# Those on which the speed of a step depends, as Linux names them.
_INSTRUCTION_SETS = (
    'avx2',
    'fma',
    'avx_vnni',
    'avx512f',
    'avx512_vnni',
    'amx_int8',
    'amx_bf16',
)
_CPUINFO = pathlib.Path('/proc/cpuinfo')


def describe() -> str:
  """Returns a line with the cores, the CPU, its instruction sets and kernel."""
  text = _CPUINFO.read_text() if _CPUINFO.exists() else ''
  fields = {}
  for line in text.splitlines():
    name, _, value = line.partition(':')
    fields.setdefault(name.strip(), value.strip())
  flags = fields.get('flags', '').split()
  has = [name for name in _INSTRUCTION_SETS if name in flags]
  return (
      f'{os.cpu_count()} cores, {fields.get("model name", "unknown CPU")}'
      f' (family {fields.get("cpu family", "?")}, model'
      f' {fields.get("model", "?")}), {" ".join(has) or "no AVX2"};'
      f' integer kernel: {native.encode_kernel() or "none"}'
  )
