"""Suites of SAEs: keys, selections and tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import html
from typing import Any

import numpy as np

from jumprelu import errors
from jumprelu.api import displays
from jumprelu.api.sae import SAE
from jumprelu.files import wording

_COLUMNS = (
    'site',
    'layer',
    'width',
    'variant',
    'l0',
    'fvu',
    'delta_loss',
    'training_fvu',
    'training_dead_share',
)


class Suite(Mapping[str, SAE]):
  """SAEs by path, with short keys.

  `suite['resid_post', 28]` is the SAE at that site whose L0 is nearest to 28,
  `suite['resid_post']` the only SAE of that site, and `suite[PATH]` the SAE of
  that path. If a site's SAEs differ in layer, width or variant, such a key is
  ambiguous: `select` them first. A notebook shows a table.

  Raises:
    UnknownMember: No SAE has the key, or several do. The message lists them.

  >>> suite['resid_post', 28]
  SAE(gemma2_nano, resid_post, layer 2, 512 latents, jumprelu, L0 27.5)
  >>> suite['transcoder/layer_2/width_512/average_l0_13'].l0_origin
  'held-out text'
  """

  def __init__(self, saes: Mapping[str, SAE], *, name: str = ''):
    self._saes = dict(saes)
    self.name = name

  def __getitem__(self, key: str | tuple[Any, ...]) -> SAE:
    if isinstance(key, str) and key in self._saes:
      return self._saes[key]
    site, l0 = key if _is_pair(key) else (key, None)
    fitting = [sae for sae in self.values() if sae.site == site]
    if not fitting:
      sites = sorted({str(sae.site) for sae in self.values()})
      raise UnknownMember(
          f'{key!r}: no such path or site; a key is PATH, SITE, or SITE, L0;'
          f' sites: {", ".join(sites)}; paths: {_paths(self.values())}'
      )
    if l0 is not None:
      fitting = _nearest(fitting, key, float(l0))
    if len(fitting) > 1:
      differing = ', '.join(_differing(fitting)) or 'L0'
      raise UnknownMember(
          f'{key!r} fits {len(fitting)} SAEs that differ in {differing}: use'
          f' suite.select, or a path: {_paths(fitting)}'
      )
    return fitting[0]

  def __contains__(self, key: object) -> bool:
    return key in self._saes

  def __iter__(self) -> Iterator[str]:
    return iter(self._saes)

  def __len__(self) -> int:
    return len(self._saes)

  def select(
      self,
      *,
      site: str | None = None,
      width: int | None = None,
      variant: str | None = None,
      layer: int | None = None,
      l0: int | float | None = None,
      seed: int | None = None,
  ) -> 'Suite':
    """Returns the SAEs that have exactly these values.

    Args:
      site: A key of `jumprelu.SITES`.
      width: The number of latents.
      variant: A key of `jumprelu.VARIANTS`.
      layer: The layer, from 0.
      l0: The L0, rounded to as many decimals as this number has: 28 selects
        `average_l0_28`. For the nearest L0 use `suite[site, l0]`.
      seed: The seed of the training.

    Raises:
      UnknownMember: No SAE fits. The message lists the values that there are.

    >>> list(suite.select(site='mlp_out', width=512, layer=2, l0=24))
    ['mlp_out/layer_2/width_512/average_l0_24']
    """
    wanted = {
        'site': site,
        'width': width,
        'variant': variant,
        'layer': layer,
        'seed': seed,
        'l0': l0,
    }
    wanted = {
        name: value for name, value in wanted.items() if value is not None
    }
    saes = {
        path: sae
        for path, sae in self.items()
        if all(_fits(sae, name, value) for name, value in wanted.items())
    }
    if not saes:
      raise UnknownMember(self._no_member(wanted))
    return Suite(saes, name=self.name)

  def _no_member(self, wanted: Mapping[str, Any]) -> str:
    """Returns the message: the first value that no SAE has, and the others."""
    fitting = list(self.values())
    for name, value in wanted.items():
      rest = [sae for sae in fitting if _fits(sae, name, value)]
      if rest:
        fitting = rest
        continue
      known = {_value(sae, name) for sae in fitting} - {None}
      text = f'{name}={value!r}: no such SAE in {self.name or "the suite"}'
      if not known and name == 'l0':
        return f'l0={value}: the L0 of these SAEs is unknown; {_WITHOUT_L0}'
      return f'{text}; {name} is {", ".join(map(_cell, _sorted(known))) or "-"}'
    return 'no such SAE'

  def table(self) -> list[dict[str, Any]]:
    """Returns a row for each SAE, for `pandas.DataFrame` or polars.

    >>> [row['l0'] for row in suite.table() if row['site'] == 'transcoder']
    [17.5..., 12.5..., 8.3...]
    """
    rows = []
    for sae in self.values():
      row: dict[str, Any] = {
          'path': sae.path,
          'site': sae.site,
          'layer': sae.layer,
          'width': sae.width,
          'variant': sae.variant,
          'l0': sae.l0,
      }
      scalars = {
          k: v
          for k, v in sae.config.items()
          if not isinstance(v, Mapping | Sequence) or isinstance(v, str)
      }
      rows.append(row | {k: v for k, v in scalars.items() if k not in row})
    return rows

  def __repr__(self) -> str:
    rows = self._cells()
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        '  '.join(cell.ljust(n) for cell, n in zip(row, widths, strict=True))
        for row in rows
    ]
    count = wording.count(len(self), 'SAE')
    return '\n'.join(
        [
            f'{self.name}: {count}',
            *map(str.rstrip, lines),
            *self._notes(),
        ]
    )

  def _notes(self) -> list[str]:
    """Returns a line for each origin of L0s other than an evaluation."""
    origins = {sae.l0_origin for sae in self.values()} - {'', 'held-out text'}
    return [f'l0: {origin}' for origin in sorted(origins)]

  def _repr_html_(self) -> str:
    head, *rows = self._cells()
    lines = [self.name, *self._notes()]
    notes = ''.join(f'<p>{html.escape(line)}</p>' for line in lines)
    return notes + displays.table(head, rows)

  def __treescope_repr__(self, path: str | None, subtree_renderer: Any) -> Any:
    return displays.wrapper(self, self._saes, path, subtree_renderer)

  def _cells(self) -> list[list[str]]:
    """Returns the table as text, without columns that are empty."""
    table = self.table()
    names = ['path'] + [
        name
        for name in _COLUMNS
        if any(row.get(name) is not None for row in table)
    ]
    return [names] + [[_cell(row.get(name)) for name in names] for row in table]


class UnknownMember(errors.UserError, KeyError):
  """No SAE, or more than one, has the key."""

  def __str__(self) -> str:
    return str(self.args[0])


# An L0 does not choose between SAEs that differ in one of these.
_KINDS = ('layer', 'width', 'variant')
_WITHOUT_L0 = 'select by site, layer, width, variant or seed, or use a path'


def _value(sae: SAE, name: str) -> Any:
  return sae.config.get('seed') if name == 'seed' else getattr(sae, name)


def _fits(sae: SAE, name: str, value: Any) -> bool:
  known = _value(sae, name)
  if name != 'l0':
    return known == value
  decimals = len(f'{value}'.partition('.')[2]) if value % 1 else 0
  return known is not None and abs(known - value) <= 0.5 * 10**-decimals


def _is_pair(key: Any) -> bool:
  return (
      isinstance(key, tuple)
      and len(key) == 2
      and isinstance(key[1], int | float | np.number)
  )


def _differing(saes: Sequence[SAE]) -> list[str]:
  """Returns the fields in which the SAEs differ."""
  return [
      name for name in _KINDS if len({_value(sae, name) for sae in saes}) > 1
  ]


def _nearest(saes: Sequence[SAE], key: Any, l0: float) -> list[SAE]:
  """Returns the SAE of nearest L0 for each layer, width and variant."""
  known = [(abs(sae.l0 - l0), sae) for sae in saes if sae.l0 is not None]
  if not known:
    raise UnknownMember(
        f'{key!r}: the L0 of these SAEs is unknown; {_WITHOUT_L0}:'
        f' {_paths(saes)}'
    )
  kinds: dict[tuple[Any, ...], list[tuple[float, SAE]]] = {}
  for pair in known:
    kind = tuple(_value(pair[1], name) for name in _KINDS)
    kinds.setdefault(kind, []).append(pair)
  return [
      sae
      for pairs in kinds.values()
      for distance, sae in pairs
      if distance == min(distance for distance, _ in pairs)
  ]


def _paths(saes: Iterable[SAE]) -> str:
  """Returns the paths, or the first 20 of them."""
  paths = [sae.path for sae in saes]
  more = f', and {len(paths) - 20} more' if len(paths) > 20 else ''
  return ', '.join(paths[:20]) + more


def _sorted(values: Iterable[Any]) -> list[Any]:
  return sorted(values, key=lambda value: (str(type(value)), value))


def _cell(value: Any) -> str:
  if value is None:
    return '-'
  return f'{value:.4g}' if isinstance(value, float) else str(value)
