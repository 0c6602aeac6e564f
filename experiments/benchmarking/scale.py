"""Gemma Scope's suites at full size: what TPUs would hold and take.

Gemma Scope (arXiv 2408.05147), table 1 and section 3.3. Prints Markdown tables
for docs/scale.md. No TPU is needed; `compile` and `evaluate` need the TPU
compiler (pip install libtpu==0.0.52) and take minutes a suite, `plan` is
instant.

  python experiments/benchmarking/scale.py plan
  python experiments/benchmarking/scale.py compile 2b-16k-v5e 2b-65k-v5e ...
  python experiments/benchmarking/scale.py evaluate 2b-16k-v5e 9b-131k-v5e ...
  python experiments/benchmarking/scale.py steps 2b-16k-v5e 2b-65k-v5e ...

`steps` says what the compiler estimates of the training steps; with
PYTHONPATH=CHECKOUT it says so of another checkout's.
"""

import functools
import sys

from jumprelu.planning import chips, plan, tpu_compile
from jumprelu.training import config

ALL_SITES = ('resid_post', 'mlp_out', 'attn_heads')
RESIDUAL = ('resid_post',)

# Gemma Scope's grid is not published; five coefficients about the two named.
COEFFICIENTS = ('1e-4', '3e-4', '6e-4', '1e-3', '2e-3')


def make_config(
    model: str, layer: int, *, width: int, tensor: int, sites=ALL_SITES, **more
) -> config.TrainConfig:
  """Five members a site by the paper's recipe."""
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

# Name -> (topology, config): what tests/tpu compiles.
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
    # By automatic differentiation.
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

# Table 1 of the paper, Gemma 2 2B without transcoders: widths, tokens, layers,
# sites, slice and its `tensor` axis.
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
  """Prints the whole 2B suite, a row of table 1 a line."""
  print(
      '| width | tokens | layers | sites | SAEs | slice | fits (GiB a chip) |'
      ' ms a step | days a layer | chip-hours |\n' + '|---' * 10 + '|'
  )
  hours: dict[str, float] = {}
  saes = 0
  for widths, tokens, layers, sites, slice_, tensor in GEMMA_SCOPE_2B:
    cfg = make_config(
        'gemma2_2b', layers[-1], width=widths[0], tensor=tensor, sites=sites,
        tokens=int(tokens),
    )  # fmt: skip
    request = plan.Request(chips.parse(slice_), layers)
    found = plan.make_plan(cfg, request)
    jobs, memory = found['jobs'], found['memory']
    slowest = max(jobs, key=lambda job: job['days'])
    print(
        f'| {widths[0]:,} | {tokens / 1e9:.0f}B | {len(layers)} | {len(sites)}'
        f' | {found["sae_count"]} | {slice_}'
        f' | {"yes" if found["fits"] else "NO"} ({memory["peak_gib"]:.1f})'
        f' | {1e3 * slowest["seconds_per_step"]:.1f} | {slowest["days"]:.2f}'
        f' | {found["chip_hours"]:,.0f} |'
    )
    chip = chips.parse(slice_).chip.name
    hours[chip] = hours.get(chip, 0) + found['chip_hours']
    saes += found['sae_count']
  total = ', '.join(f'{value:,.0f} of {chip}' for chip, value in hours.items())
  print(f'\n{saes} SAEs; chip-hours: {total}.')


def compile_suites(names: list[str]) -> None:
  """Prints what the TPU compiler says of suites, a line each."""
  print(
      '| suite | slice | data x tensor | block | steps | run | HBM'
      ' | formula: run | formula: ms a step, without LM / LM |\n'
      + '|---' * 9 + '|'
  )  # fmt: skip
  for name in names or list(SUITES):
    topology, cfg = SUITES[name]
    slice_ = chips.parse(topology)
    found = tpu_compile.compile_all(cfg, topology)
    told = plan.make_plan(cfg, plan.Request(slice_), compiled=found)
    memory, (job,) = told['memory'], told['jobs']
    peaks = [found[each].peak_bytes / 2**30 for each in ('block', 'segment')]
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
  """Prints what the TPU compiler says of suites' evaluations, a line each."""
  programs = ('sums', 'reconstruct', 'losses')
  print(f'| suite | {" | ".join(programs)} |\n' + '|---' * 4 + '|')
  for name in names or list(SUITES):
    topology, cfg = SUITES[name]
    found = tpu_compile.compile_all(cfg, topology, programs=programs)
    peaks = [f'{found[each].peak_bytes / 2**30:.2f}' for each in programs]
    print(f'| {name} | {" | ".join(peaks)} |', flush=True)


def compile_steps(names: list[str]) -> None:
  """Prints the compiler's estimates of suites' training steps, a line each.

  Of a loop whose length is not known the compiler counts one turn: a step of
  one member a group. Its estimate of the time is left out: for such programs it
  comes out negative.
  """
  print(
      '| suite | TFLOP | GB read and written | collectives: MB | peak GiB |\n'
      + '|---' * 5 + '|'
  )  # fmt: skip
  for name in names or list(SUITES):
    topology, cfg = SUITES[name]
    found = tpu_compile.compile_all(cfg, topology, programs=('segment',))
    program = found['segment']
    between = sum(each.bytes for each in program.collectives)
    print(
        f'| {name} | {program.flops / 1e12:.3f}'
        f' | {program.bytes_accessed / 1e9:.2f} | {between / 1e6:.0f}'
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
