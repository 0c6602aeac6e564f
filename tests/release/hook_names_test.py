"""Names of sites in other libraries."""

import pytest

from jumprelu.release import hook_names


def test_hooks_of_a_transcoder_depend_on_the_gain():
  with_gain = hook_names.hook_names('transcoder', layer=5, input_gain=True)[
      'input'
  ]
  without = hook_names.hook_names('transcoder', layer=5, input_gain=False)[
      'input'
  ]
  assert without['transformer_lens'] == 'blocks.5.ln2.hook_normalized'
  assert with_gain['transformer_lens'].endswith(' * blocks.5.ln2.w')
  norm = 'model.layers.5.pre_feedforward_layernorm'
  assert with_gain['huggingface'] == f'{norm}.output'
  assert without['huggingface'] == f'{norm}.output / (1 + {norm}.weight)'


@pytest.mark.parametrize(
    'site, lens, module',
    [
        ('resid_post', 'blocks.5.hook_resid_post', 'model.layers.5.output'),
        (
            'mlp_out',
            'blocks.5.hook_mlp_out',
            'model.layers.5.post_feedforward_layernorm.output',
        ),
        (
            'attn_heads',
            'blocks.5.attn.hook_z',
            'model.layers.5.self_attn.o_proj.input',
        ),
    ],
)
def test_hooks_have_the_names_of_other_libraries(site, lens, module):
  hooks = hook_names.hook_names(site, layer=5)
  assert hooks['input'] == hooks['target']
  assert hooks['input']['transformer_lens'] == lens
  assert hooks['input']['huggingface'] == module
