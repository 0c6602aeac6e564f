"""Memory and time of Gemma Scope's suites at full size, on TPUs.

The suites are those of Gemma Scope (arXiv 2408.05147), table 1 and section 3.3.
The output consists of tables in Markdown, for docs/scale.md. No TPU is needed.
`plan` is instant. The other commands need the TPU compiler (pip install
libtpu==0.0.52) and take minutes per suite.

  python experiments/benchmarking/scale.py plan
  python experiments/benchmarking/scale.py compile 2b-16k-v5e 2b-65k-v5e ...
  python experiments/benchmarking/scale.py evaluate 2b-16k-v5e 9b-131k-v5e ...
  python experiments/benchmarking/scale.py steps 2b-16k-v5e 2b-65k-v5e ...

`compile` prints the memory of training, `evaluate` that of the evaluation, and
`steps` the compiler's other estimates of the training steps. With
PYTHONPATH=CHECKOUT the code of another checkout is compiled.
"""

import functools
import sys

from jumprelu.planning import chips, plan, tpu_compile
from jumprelu.training import config

ALL_SITES = ('resid_post', 'mlp_out', 'attn_heads')
RESIDUAL = ('resid_post',)

# Gemma Scope does not publish its grid of coefficients. These five surround the
# two that it names.
COEFFICIENTS = ('1e-4', '3e-4', '6e-4', '1e-3', '2e-3')


def make_config(
    model: str, layer: int, *, width: int, tensor: int, sites=ALL_SITES, **more
) -> config.TrainConfig:
  """Returns a config of the paper's recipe with five members per site."""
  return config.resolve(
      {
          'recipe': 'paper',
          'model': model,
          'layer': layer,
          'widths': (width,),
          'sites': sites,
          'sparsity_coefficients': COEFFICIENTS,
          'lm_dtype': 'bfloat16',
          'stream.lm_sequences': 64,
          'mesh.tensor': tensor,
          **more,
      }
  )


_2b = functools.partial(make_config, 'gemma2_2b', 12)
_9b = functools.partial(
    make_config, 'gemma2_9b', 20, width=2**17, sites=RESIDUAL
)
_27b = functools.partial(
    make_config, 'gemma2_27b', 22, width=2**17, sites=RESIDUAL
)

_1b = functools.partial(make_config, 'gemma3_1b', 13)
_4b = functools.partial(make_config, 'gemma3_4b', 17)
_27b_3 = functools.partial(make_config, 'gemma3_27b', 31, sites=RESIDUAL)

# Name -> (topology, config). The tests in tests/tpu compile these suites.
SUITES = {
    '2b-16k-v5e': ('v5e:4x4', _2b(width=2**14, tensor=2)),
    '2b-16k-v5p': ('v5p:2x2x1', _2b(width=2**14, tensor=1)),
    '2b-16k-v6e': ('v6e:4x4', _2b(width=2**14, tensor=2)),
    '2b-65k-v5e': ('v5e:4x4', _2b(width=2**16, tensor=2)),
    '2b-65k-v5p': ('v5p:2x2x1', _2b(width=2**16, tensor=1)),
    '2b-65k-v6e': ('v6e:4x4', _2b(width=2**16, tensor=2)),
    '9b-131k-v5e': ('v5e:4x4', _9b(tensor=1)),
    '9b-131k-v5p': ('v5p:2x2x1', _9b(tensor=1)),
    '9b-131k-v6e': ('v6e:4x4', _9b(tensor=1)),
    '27b-131k-v5e': ('v5e:4x4', _27b(tensor=1)),
    '27b-131k-v5p': ('v5p:2x2x1', _27b(tensor=4)),
    '27b-131k-v6e': ('v6e:4x4', _27b(tensor=1)),
    # Gemma 3, at the middle one of the layers that Gemma Scope 2 publishes.
    'gemma3-1b-16k-v5e': ('v5e:4x4', _1b(width=2**14, tensor=2)),
    'gemma3-1b-262k-v5e': (
        'v5e:4x4',
        _1b(width=2**18, tensor=1, sites=RESIDUAL),
    ),
    'gemma3-4b-16k-v5e': ('v5e:4x4', _4b(width=2**14, tensor=2)),
    'gemma3-4b-262k-v5e': (
        'v5e:4x4',
        _4b(width=2**18, tensor=1, sites=RESIDUAL),
    ),
    'gemma3-27b-16k-v5e': ('v5e:4x4', _27b_3(width=2**14, tensor=1)),
    'gemma3-27b-262k-v5e': ('v5e:4x8', _27b_3(width=2**18, tensor=1)),
    # Suites that automatic differentiation trains.
    '2b-16k-v5e-oracle': (
        'v5e:4x4',
        _2b(width=2**14, tensor=2, backend='oracle'),
    ),
    '2b-16k-v5e-gated': (
        'v5e:4x4',
        _2b(width=2**14, tensor=2, variants=('gated',)),
    ),
    '9b-131k-v5e-gated': ('v5e:4x4', _9b(tensor=1, variants=('gated',))),
}

# Table 1 of the paper, Gemma 2 2B without transcoders. A row has the width (in
# a tuple), tokens, layers, sites, the slice, and the size of its `tensor` axis.
_EVERY = tuple(range(26))
GEMMA_SCOPE_2B = (
    ((2**14,), 4e9, _EVERY, ALL_SITES, 'v5e:4x4', 2),
    ((2**16,), 8e9, _EVERY, ALL_SITES, 'v5e:4x4', 2),
    ((2**15,), 8e9, (12,), RESIDUAL, 'v5e:4x4', 2),
    ((2**17,), 8e9, (12,), RESIDUAL, 'v5e:4x4', 2),
    ((2**18,), 8e9, (12,), RESIDUAL, 'v5e:4x4', 1),
    ((2**19,), 8e9, (12,), RESIDUAL, 'v5e:4x8', 1),
    ((2**20,), 16e9, (5, 12, 19), RESIDUAL, 'v5p:2x2x4', 1),
)


def plan_gemma_scope() -> None:
  """Prints the plan of the whole 2B suite, one line per row of table 1."""
  print(
      '| width | tokens | layers | sites | SAEs | slice | fits (GiB per chip) |'
      ' ms per step | days per layer | chip-hours |\n' + '|---' * 10 + '|'
  )
  hours: dict[str, float] = {}
  saes = 0
  for widths, tokens, layers, sites, slice_, tensor in GEMMA_SCOPE_2B:
    cfg = make_config(
        'gemma2_2b', layers[-1], width=widths[0], tensor=tensor, sites=sites,
        tokens=int(tokens),
    )  # fmt: skip
    request = plan.Request(chips.parse(slice_), layers)
    result = plan.make_plan(cfg, request)
    jobs, memory = result['jobs'], result['memory']
    slowest = max(jobs, key=lambda job: job['days'])
    print(
        f'| {widths[0]:,} | {tokens / 1e9:.0f}B | {len(layers)} | {len(sites)}'
        f' | {result["sae_count"]} | {slice_}'
        f' | {"yes" if result["fits"] else "NO"} ({memory["peak_gib"]:.1f})'
        f' | {1e3 * slowest["seconds_per_step"]:.1f} | {slowest["days"]:.2f}'
        f' | {result["chip_hours"]:,.0f} |'
    )
    chip = chips.parse(slice_).chip.name
    hours[chip] = hours.get(chip, 0) + result['chip_hours']
    saes += result['sae_count']
  total = ', '.join(f'{value:,.0f} of {chip}' for chip, value in hours.items())
  print(f'\n{saes} SAEs; chip-hours: {total}.')


def compile_suites(names: list[str]) -> None:
  """Prints the memory for training, by the TPU compiler, one suite per line."""
  print(
      '| suite | slice | data x tensor | block | steps | run | HBM'
      ' | formula: run | formula: ms per step, without LM / LM |\n'
      + '|---' * 9 + '|'
  )  # fmt: skip
  for name in names or list(SUITES):
    topology, cfg = SUITES[name]
    slice_ = chips.parse(topology)
    compiled = tpu_compile.compile_all(cfg, topology)
    result = plan.make_plan(cfg, plan.Request(slice_), compiled=compiled)
    memory, (job,) = result['memory'], result['jobs']
    peaks = [compiled[k].peak_bytes / 2**30 for k in ('block', 'segment')]
    by_lm = 1e3 * job['seconds_per_step'] * job['lm_share']
    print(
        f'| {name} | {topology} | {slice_.chips // cfg.mesh.tensor} x'
        f' {cfg.mesh.tensor} | {peaks[0]:.2f} | {peaks[1]:.2f}'
        f' | {memory["peak_gib"]:.1f} | {slice_.chip.hbm_bytes / 2**30:.0f}'
        f' | {sum(memory["formula_gib"].values()):.1f}'
        f' | {1e3 * job["seconds_per_step"] - by_lm:.0f} / {by_lm:.0f} |',
        flush=True,
    )


def compile_evaluations(names: list[str]) -> None:
  """Prints the memory of the evaluations of suites, one suite per line."""
  programs = ('sums', 'reconstruct', 'losses')
  print(f'| suite | {" | ".join(programs)} |\n' + '|---' * 4 + '|')
  for name in names or list(SUITES):
    topology, cfg = SUITES[name]
    compiled = tpu_compile.compile_all(cfg, topology, programs=programs)
    peaks = [f'{compiled[k].peak_bytes / 2**30:.2f}' for k in programs]
    print(f'| {name} | {" | ".join(peaks)} |', flush=True)


def compile_steps(names: list[str]) -> None:
  """Prints the compiler's estimates of training steps, one suite per line.

  The compiler counts one iteration of a loop of unknown length, so the numbers
  are for a single step. If the members of a group step one after another, only
  one of them is counted. The compiler's estimate of the time is left out,
  because it is negative for such programs.
  """
  print(
      '| suite | TFLOP | GB read and written | collectives: MB | peak GiB |\n'
      + '|---' * 5 + '|'
  )  # fmt: skip
  for name in names or list(SUITES):
    topology, cfg = SUITES[name]
    compiled = tpu_compile.compile_all(cfg, topology, programs=('segment',))
    program = compiled['segment']
    collectives = sum(c.bytes for c in program.collectives)
    print(
        f'| {name} | {program.flops / 1e12:.3f}'
        f' | {program.bytes_accessed / 1e9:.2f} | {collectives / 1e6:.0f}'
        f' | {program.peak_bytes / 2**30:.2f} |',
        flush=True,
    )


if __name__ == '__main__':
  if sys.argv[1:2] == ['steps']:
    compile_steps(sys.argv[2:])
  elif sys.argv[1:2] == ['compile']:
    compile_suites(sys.argv[2:])
  elif sys.argv[1:2] == ['evaluate']:
    compile_evaluations(sys.argv[2:])
  elif sys.argv[1:] == ['plan']:
    plan_gemma_scope()
  else:
    sys.exit(f'{__doc__}')
