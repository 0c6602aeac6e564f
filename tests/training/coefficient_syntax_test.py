"""The grammar of sparsity coefficients."""

import pytest

from jumprelu import errors
from jumprelu.training import coefficient_syntax


def test_plain_values_hold_for_every_variant_and_site():
  entries = ('1e-3', '3e-3')
  for variant, site in (('jumprelu', 'resid_post'), ('gated', 'mlp_out')):
    assert coefficient_syntax.coefficients_for(entries, variant, site) == (
        1e-3,
        3e-3,
    )


def test_the_most_specific_key_wins():
  entries = ('9.0', 'resid_post:1e-3+3e-3', 'gated@resid_post:2e-3')
  coefficients = {
      (variant, site): coefficient_syntax.coefficients_for(
          entries, variant, site
      )
      for variant in ('jumprelu', 'gated')
      for site in ('resid_post', 'mlp_out')
  }
  assert coefficients == {
      ('jumprelu', 'resid_post'): (1e-3, 3e-3),
      ('gated', 'resid_post'): (2e-3,),
      ('jumprelu', 'mlp_out'): (9.0,),
      ('gated', 'mlp_out'): (9.0,),
  }


def test_a_site_without_a_key_has_no_coefficients():
  entries = ('gated@mlp_out:2e-3',)
  assert (
      coefficient_syntax.coefficients_for(entries, 'jumprelu', 'mlp_out') == ()
  )


@pytest.mark.parametrize(
    'entries, message',
    [
        (('1e-3', 'x'), "'x' in 'x' is not a number"),
        (('mlp_out:1e-3+',), "'' in 'mlp_out:1e-3\\+' is not a number"),
        (('mlp_out:1e-3+-2',), '-2 in .* must be finite and not negative'),
        (('nan',), 'must be finite'),
        ((':1e-3',), 'names no site'),
        (('gated@:1e-3',), 'names no site'),
        (('@mlp_out:1e-3',), 'names no site'),
        (('1e-3', '0.001'), 'holds a value twice'),
        (('mlp_out:1+1',), 'for mlp_out holds a value twice'),
    ],
)
def test_an_error_quotes_the_part_that_is_wrong(entries, message):
  with pytest.raises(errors.UserError, match=message):
    coefficient_syntax.parse(entries)
