"""The attention kernel, compiled by the TPU compiler; no TPU is needed."""

import os
import subprocess
import sys

import pytest

from jumprelu.planning import tpu_compile

pytestmark = [
    pytest.mark.tpu,
    pytest.mark.skipif(
        not tpu_compile.available(), reason='needs `pip install libtpu==0.0.52`'
    ),
    pytest.mark.timeout(600),
]

# Compiles a local and a global layer with the heads of 2B, sharded over 2 x 2
# chips. Prints the number of kernels, and the number of shapes of arrays over
# pairs of positions.
_SCRIPT = r"""
import dataclasses, re, sys
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jumprelu import lm, sharding
from jumprelu.lm import gemma, placement

config = dataclasses.replace(
    lm.MODELS['gemma2_2b'], name='shallow', vocab=512, layers=2, window=512,
    attention=sys.argv[1],
)
devices = topologies.get_topology_desc(
    topology_name='v5e:2x2', platform='tpu'
).devices
mesh = sharding.make_mesh(sharding.Config(data=2, tensor=2), devices)
params = placement.param_layout(
    config, num_layers=2, dtype=jnp.bfloat16, mesh=mesh
)
ids = jax.ShapeDtypeStruct(
    (16, 1024), jnp.int32, sharding=sharding.named(mesh, 'sequences', None)
)
compiled = jax.jit(
    lambda params, tokens, positions, segments: gemma.run(
        config, params, tokens, positions=positions, segments=segments,
        mesh=mesh,
    )[0]
).lower(params, ids, ids, ids).compile()
text = compiled.as_text()
arrays = set(re.findall(r'\b[a-z]+\d*\[([\d,]+)\]', text))
pairs = [x for x in arrays if x.split(',').count('1024') > 1]
print(text.count('custom_call_target="tpu_custom_call"'), len(pairs))
"""


def _compile(form):
  process = subprocess.run(
      [sys.executable, '-P', '-c', _SCRIPT, form],
      env=os.environ | tpu_compile.ENVIRONMENT,
      capture_output=True,
      text=True,
      check=False,
  )
  assert not process.returncode, process.stderr[-2000:]
  return tuple(map(int, process.stdout.split()[-2:]))


def test_long_sequences_use_the_kernel_and_hold_no_scores():
  assert _compile('auto') == (2, 0)  # One kernel per layer.
  kernels, pairs = _compile('dense')
  assert kernels == 0 and pairs
