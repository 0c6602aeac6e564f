"""Suites of SAEs, loaded from any folder that holds some."""

from collections.abc import Iterator, Mapping, Sequence
import html
import os
import pathlib
from typing import Any

from jumprelu import errors
from jumprelu.api.sae import SAE
from jumprelu.files import folder_kinds, json_files, wording
from jumprelu.release import formats, layout
from jumprelu.release.formats import record

_COLUMNS = ('site', 'layer', 'width', 'variant', 'l0', 'fvu', 'delta_loss')


class Suite(Mapping[str, SAE]):
  """SAEs by path, with short keys.

  `suite['resid_post', 28]` is the SAE at that site whose L0 is nearest to 28,
  `suite['resid_post']` the only SAE of that site, and `suite[PATH]` the SAE of
  that path. `select` returns a smaller suite. A notebook shows a table.
  """

  def __init__(self, saes: Mapping[str, SAE], *, name: str = ''):
    self._saes = dict(saes)
    self.name = name

  def __getitem__(self, key: str | tuple[str, int | float]) -> SAE:
    if isinstance(key, str) and key in self._saes:
      return self._saes[key]
    site, l0 = key if isinstance(key, tuple) else (key, None)
    fitting = [sae for sae in self.values() if sae.site == site]
    if not fitting:
      sites = sorted({str(sae.site) for sae in self.values()})
      raise UnknownMember(
          f'{key!r}: no such path or site; sites: {", ".join(sites)}; paths:'
          f' {", ".join(self._saes)}'
      )
    if l0 is not None:
      fitting = _nearest(fitting, float(l0))
    if len(fitting) > 1:
      raise UnknownMember(
          f'{key!r} fits {len(fitting)} SAEs: use one of the paths'
          f' {", ".join(sae.path for sae in fitting)}, or select()'
      )
    return fitting[0]

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
      l0: Only the SAEs whose L0 is nearest to this number.
      seed: The seed of the training.

    Raises:
      UnknownMember: No SAE fits.
    """
    wanted = {
        'site': site,
        'width': width,
        'variant': variant,
        'layer': layer,
        'seed': seed,
    }
    wanted = {
        name: value for name, value in wanted.items() if value is not None
    }
    saes = [sae for sae in self.values() if _fits(sae, wanted)]
    if l0 is not None:
      saes = _nearest(saes, l0)
    if not saes:
      raise UnknownMember(f'no SAE of {self.name or "the suite"} has {wanted}')
    return Suite({sae.path: sae for sae in saes}, name=self.name)

  def table(self) -> list[dict[str, Any]]:
    """Returns a row for each SAE, for `pandas.DataFrame` or polars."""
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
    return '\n'.join([f'{self.name}: {count}', *map(str.rstrip, lines)])

  def _repr_html_(self) -> str:
    head, *rows = self._cells()
    titles = ''.join(f'<th>{html.escape(cell)}</th>' for cell in head)
    body = ''.join(
        '<tr>' + ''.join(f'<td>{html.escape(c)}</td>' for c in row) + '</tr>'
        for row in rows
    )
    return (
        f'<p>{html.escape(self.name)}</p><table><thead><tr>{titles}</tr>'
        f'</thead><tbody>{body}</tbody></table>'
    )

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


def load(
    path: str | os.PathLike[str],
    *,
    model: str | None = None,
    layer: int | None = None,
    site: str | None = None,
    input_gain: bool | None = None,
) -> Suite:
  """Returns the SAEs of a release, a run, published files, or one npz.

  Releases and runs of this package, Gemma Scope, Gemma Scope 2 and SAELens are
  recognised by their files. Model, layer and site come from the files or from
  the names of the folders.

  Args:
    path: A folder with SAEs below it, one SAE's folder, or its params.npz.
    model: The language model, instead of the one that the files name.
    layer: The layer, if the files do not say it.
    site: The site, if the files do not say it.
    input_gain: Whether a transcoder reads the norm's output with its gain, if
      the files do not say it.

  Raises:
    MissingInputError: There is no SAE.
    DataError: A file is damaged; the message names it.
    UserError: An argument contradicts the files.
  """
  stated = record.Origin(model, layer, site, input_gain)
  path = pathlib.Path(path).expanduser()
  folder = path.parent if path.is_file() else path
  if folder_kinds.is_run(folder):
    released, results = _of_run(folder), {}
  else:
    released = formats.find(folder)
    results = {name: _results(folder / name) for name in released}
  saes = {}
  for name, member in released.items():
    shown = folder.name if name == '.' else name
    origin = _merged(shown, stated, member.origin)
    member = record.Released(
        member.sae, member.params, origin, member.meta, member.training
    )
    saes[shown] = SAE(member, path=shown, results=results.get(name))
  return Suite(saes, name=str(path))


def _merged(
    name: str, arguments: record.Origin, files: record.Origin
) -> record.Origin:
  for field in ('layer', 'site', 'input_gain'):
    wanted, known = getattr(arguments, field), getattr(files, field)
    if None not in (wanted, known) and wanted != known:
      raise errors.UserError(f'{field}={wanted!r}: {name} is of {known!r}')
  return arguments.over(files)


def _results(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the row of results of a member of our own releases, else {}."""
  return json_files.read_json(folder / layout.RESULTS, missing_ok=True)


def _of_run(folder: pathlib.Path) -> dict[str, record.Released]:
  """Returns the members of a run, with their scales folded in."""
  # Imported here because releases can be loaded without the training extra.
  from jumprelu import extras

  extras.check('train')
  from jumprelu.files import dotted
  from jumprelu.release import publish
  from jumprelu.training import load_run, run_dir

  config = run_dir.RunDir(folder).read_config()
  members = load_run.load_suite(folder)
  released = {}
  for member, (sae, params) in zip(members, publish.fold(members), strict=True):
    reads = member.reads
    name = f'{reads.name}/layer_{reads.layer}/width_{sae.width}/{sae.variant}'
    number = sum(known.startswith(name) for known in released)
    origin = record.Origin(
        config.model, reads.layer, reads.name, reads.stated_input_gain
    )
    meta = {
        'sparsity_coefficient': member.member.sparsity_coefficient,
        'target_l0': member.member.target_l0,
        'seed': member.member.seed,
        'steps': member.meta['step'],
    }
    released[f'{name}_{number}'] = record.Released(
        sae, params, origin, meta, dotted.to_dict(config)
    )
  return released


def _fits(sae: SAE, wanted: Mapping[str, Any]) -> bool:
  values = {
      'site': sae.site,
      'width': sae.width,
      'variant': sae.variant,
      'layer': sae.layer,
      'seed': sae.config.get('seed'),
  }
  return all(values[name] == value for name, value in wanted.items())


def _nearest(saes: Sequence[SAE], l0: int | float) -> list[SAE]:
  """Returns the SAEs whose L0 is nearest; all, if no L0 is known."""
  known = [(abs(sae.l0 - l0), sae) for sae in saes if sae.l0 is not None]
  if not known:
    return list(saes)
  least = min(distance for distance, _ in known)
  return [sae for distance, sae in known if distance == least]


def _cell(value: Any) -> str:
  if value is None:
    return '-'
  return f'{value:.4g}' if isinstance(value, float) else str(value)
