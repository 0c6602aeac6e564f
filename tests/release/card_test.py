"""The card of a release: its table, notes and sample code."""

import os

import numpy as np

from jumprelu import lm
from jumprelu.release import members as members_lib
from tests import small_release


def test_the_card_lists_all_members_and_its_code_loads_one(tmp_path):
  out = small_release.write(tmp_path / 'release')
  text = (out / 'README.md').read_text()
  for path in members_lib.list_members(out):
    assert f'`{path}`' in text
  code = text.split('```python\n')[1].split('```')[0]
  path = members_lib.list_members(out)[0]
  with np.load(out / path / 'test_vectors.npz') as vectors:
    scope = {'x': vectors['x']}
    before = os.getcwd()
    os.chdir(out)
    try:
      exec(code, scope)
    finally:
      os.chdir(before)
    np.testing.assert_allclose(
        scope['reconstruction'], vectors['reconstruction'], rtol=1e-4, atol=1e-4
    )


def test_the_card_shows_no_dead_share_after_too_few_tokens(tmp_path):
  members = small_release.make_members()
  enough = small_release.write(tmp_path / 'enough', members)
  text = (enough / 'README.md').read_text()
  assert 'never fired in 100,000 held-out tokens' in text
  few = [
      small_release.replace(
          m, results={**m.results, 'dead_share': None, 'dead_window_tokens': 9}
      )
      for m in members
  ]
  text = (small_release.write(tmp_path / 'few', few) / 'README.md').read_text()
  assert 'never fired in 9' not in text
  assert 'too few held-out tokens' in text
  lines = [line for line in text.splitlines() if line.startswith('| `')]
  assert lines and all(line.endswith('| – |') for line in lines)


def test_the_card_describes_the_input_of_transcoders(tmp_path):
  members = small_release.make_members()
  without = small_release.write(tmp_path / 'without', members)
  assert 'norm before the MLP without its\ngain' in (
      (without / 'README.md').read_text()
  )
  with_gain = [
      small_release.replace(m, reads=lm.make_reads(m.site, small_release.LAYER))
      for m in members
  ]
  out = small_release.write(tmp_path / 'with', with_gain)
  assert 'with its gain' in (out / 'README.md').read_text()
  out = small_release.write(tmp_path / 'none', members[:2])
  assert 'norm before the MLP' not in (out / 'README.md').read_text()


def test_the_card_of_other_variants_claims_and_shows_no_jumprelu_sae(tmp_path):
  gated = small_release.make_member(variant='gated', tied=False)
  out = small_release.write(tmp_path / 'release', [gated])
  text = (out / 'README.md').read_text()
  (path,) = members_lib.list_members(out)
  body = text.split('## Cite')[0]
  assert 'JumpReLU' not in body and 'tools for' not in body
  assert 'jumprelu, interpretability' not in text
  assert "p['threshold']" not in text
  assert f"release.load_member('{path}')" in text


def test_the_sample_code_of_a_mixed_suite_loads_a_jumprelu_member(tmp_path):
  members = [
      small_release.make_member(variant='gated', tied=False),
      small_release.make_member(seed=1),
  ]
  out = small_release.write(tmp_path / 'release', members)
  text = (out / 'README.md').read_text()
  title = next(line for line in text.splitlines() if line.startswith('# '))
  assert title == '# Sparse autoencoders on gemma2_nano, layer 2'
  assert 'The JumpReLU SAEs have the file layout' in text
  assert 'variants/gated' in members_lib.list_members(out)[0]
  assert f"np.load('{small_release.FOLDER}/params.npz')" in text
  assert f"release.load_member('{small_release.FOLDER}')" in text


def test_the_card_states_how_many_positions_the_losses_have(tmp_path):
  member = small_release.make_member()
  changed = small_release.replace(
      member, results={**member.results, 'tokens_delta_loss': 24_576}
  )
  out = small_release.write(tmp_path / 'release', [changed])
  assert '; 24,576 for the losses)' in (out / 'README.md').read_text()
