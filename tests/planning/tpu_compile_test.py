"""Collectives and host transfers are parsed from compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import sharding
from jumprelu.planning import tpu_compile
from tests import toy_suite


def test_the_collectives_of_a_program_are_listed_largest_first():
  mesh = toy_suite.make_mesh(8)
  x = jax.device_put(
      np.ones((16, 4), np.float32), sharding.named(mesh, 'batch', None)
  )

  def program(x):
    total = sharding.constrain(x.sum(0), mesh, None)
    return sharding.constrain(x, mesh, None, None) + total[None]

  text = jax.jit(program).lower(x).compile().as_text()
  assert tpu_compile.collectives(text) == (
      tpu_compile.Collective('all-gather', 'f32[16,4]', 256),
      tpu_compile.Collective('all-reduce', 'f32[4]', 16),
  )


def test_asynchronous_collectives_count_their_results_only():
  text = (
      '  %a = (bf16[2,8]{1,0}, bf16[16,8]{1,0:T(8,128)}) all-gather-start('
      'bf16[2,8] %x), dimensions={0}\n'
      '  %b = bf16[16,8]{1,0} all-gather-done(%a)\n'
  )
  assert tpu_compile.collectives(text) == (
      tpu_compile.Collective('all-gather', 'bf16[16,8]', 256),
  )


def test_asynchronous_collectives_with_several_results_count_all_of_them():
  gather = (
      '  %a = ((bf16[2,8]{1,0}, f32[1]{0}), (bf16[16,8]{1,0:T(8,128)(2,1)},'
      ' f32[8]{0}), u32[]{:S(2)}) all-gather-start(bf16[2,8] %x, f32[1] %y)\n'
  )
  reduce = (
      '  %b = (f32[4]{0}, f32[2,4]{1,0}) all-reduce-start(f32[4] %x,'
      ' f32[2,4] %y), to_apply=%add\n'
  )
  scatter = (
      '  %c = ((f32[64]{0}), f32[8]{0}) reduce-scatter-start(f32[64] %x)\n'
  )
  assert tpu_compile.collectives(gather + reduce + scatter) == (
      tpu_compile.Collective('all-gather', 'bf16[16,8]', 256 + 32),
      tpu_compile.Collective('all-reduce', 'f32[2,4]', 16 + 32),
      tpu_compile.Collective('reduce-scatter', 'f32[8]', 32),
  )


def test_a_callback_is_a_host_transfer_and_arithmetic_is_not():
  def with_callback(x):
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    return x + jax.pure_callback(lambda: np.float32(1), shape)

  def texts(function):
    return jax.jit(function).lower(1.0).compile().as_text()

  assert len(tpu_compile.host_transfers(texts(with_callback))) == 1
  assert not tpu_compile.host_transfers(texts(lambda x: x + 1))


def test_infeed_and_send_are_host_transfers():
  text = (
      '  %a = ((f32[2]), token[]) infeed(token[] %t)\n'
      '  %b = (f32[2], u32[], token[]) send(f32[2] %x, token[] %t)\n'
      '  %c = f32[2] add(f32[2] %x, f32[2] %x)\n'
  )
  assert len(tpu_compile.host_transfers(text)) == 2
