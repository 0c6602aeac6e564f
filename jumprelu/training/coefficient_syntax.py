"""The syntax of `--sparsity_coefficients`.

The flag is a comma-separated list. Each entry is `VALUES`, `SITE:VALUES` or
`VARIANT@SITE:VALUES`, where VALUES are numbers joined by `+`:

  1e-3,3e-3              two values for every variant and site
  resid_post:1e-3+3e-3   two values for one site
  gated@mlp_out:2e-3     one value for one variant at one site

The most specific entries win: those of the variant and site, otherwise those of
the site, otherwise those without a site.
"""

from collections.abc import Sequence
import math

from jumprelu import errors

# (variant, site), in which '' matches every name.
Key = tuple[str, str]


def parse(entries: Sequence[str]) -> dict[Key, tuple[float, ...]]:
  """Returns the coefficients by key.

  Raises:
    UserError: an entry is malformed, or a key has a value twice. The message
      quotes the entry or the values.
  """
  table: dict[Key, tuple[float, ...]] = {}
  for entry in entries:
    key_text, colon, values_text = entry.rpartition(':')
    variant, _, site = key_text.rpartition('@')
    if colon and not site or key_text.startswith('@'):
      raise errors.UserError(
          f'sparsity_coefficients: {entry!r} names no site before the colon;'
          ' write SITE:VALUE+VALUE or VARIANT@SITE:VALUE'
      )
    values = tuple(_value(text, entry) for text in values_text.split('+'))
    key = (variant.strip(), site.strip())
    table[key] = table.get(key, ()) + values
  for (_, site), values in table.items():
    if len(set(values)) < len(values):
      where = f' for {site}' if site else ''
      raise errors.UserError(
          f'sparsity_coefficients: {values}{where} holds a value twice'
      )
  return table


def coefficients_for(
    entries: Sequence[str], variant: str, site: str
) -> tuple[float, ...]:
  """Returns the coefficients of a variant at a site; () if it has none."""
  table = parse(entries)
  for key in ((variant, site), ('', site), ('', '')):
    if key in table:
      return table[key]
  return ()


def _value(text: str, entry: str) -> float:
  # '1e+3' is refused, because '+' separates it into '1e' and '3'.
  try:
    value = float(text)
  except ValueError:
    raise errors.UserError(
        f'sparsity_coefficients: {text.strip()!r} in {entry!r} is not a number'
    ) from None
  if not (math.isfinite(value) and value >= 0):
    raise errors.UserError(
        f'sparsity_coefficients: {text.strip()} in {entry!r} must be finite'
        ' and not negative'
    )
  return value
