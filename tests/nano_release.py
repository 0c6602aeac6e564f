"""A release of two members of the nano model, and text to evaluate it on."""

import dataclasses

import numpy as np

from jumprelu import lm
from jumprelu.release import write
from tests import small_release

LAYER = lm.get_config('gemma2_nano').layers - 1
WORDS = 'the cat sat on a mat while def f(x): return x + 1 if not None'.split()


def make_text(folder):
  """Writes documents of a few lines each, some of them held out."""
  rng = np.random.default_rng(0)
  folder.mkdir()
  for i in range(24):
    words = rng.choice(WORDS, rng.integers(40, 120))
    (folder / f'{i}.txt').write_text(' '.join(words), encoding='utf-8')
  return folder


def make_release(folder):
  """Releases two members of the last layer, which differ in their seed."""
  members = []
  for seed in (0, 1):
    sae, params = small_release.trained_sae(seed=seed, d=128, width=16)
    sae, params = sae.fold(params, input_scale=3.5, target_scale=3.5)
    small = small_release.make_member(seed=seed)
    rng = np.random.default_rng(seed)
    members.append(
        dataclasses.replace(
            small,
            sae=sae,
            params=params,
            reads=lm.make_reads('resid_post', LAYER),
            inputs=rng.normal(size=(9, 128)).astype(np.float32),
            firing_frequency=None,
        )
    )
  provenance = small_release.provenance(
      layer=LAYER, training={'model': 'gemma2_nano', 'corpus': {'seed': 3}}
  )
  write.write_release(members, folder, provenance=provenance)
  return folder
