"""A report names its CPU, instruction sets and integer kernel."""

from experiments.benchmarking import machine
from jumprelu.ops import native

_CPUINFO = """\
processor\t: 0
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC 7R13
flags\t\t: fpu sse2 avx2 fma bmi2
processor\t: 1
model name\t: another
"""


def test_the_cpu_its_instruction_sets_and_the_kernel_are_named(
    tmp_path, monkeypatch
):
  path = tmp_path / 'cpuinfo'
  path.write_text(_CPUINFO)
  monkeypatch.setattr(machine, '_CPUINFO', path)
  monkeypatch.setattr(native, 'encode_kernel', lambda: 'avx2')
  text = machine.describe()
  assert 'AMD EPYC 7R13 (family 25, model 1), avx2 fma;' in text
  assert text.endswith('integer kernel: avx2')


def test_a_machine_without_a_description_is_described(tmp_path, monkeypatch):
  monkeypatch.setattr(machine, '_CPUINFO', tmp_path / 'none')
  monkeypatch.setattr(native, 'encode_kernel', lambda: '')
  text = machine.describe()
  assert 'unknown CPU' in text and 'no AVX2' in text
  assert text.endswith('integer kernel: none')
