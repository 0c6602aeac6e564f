"""Write a suite as files that any Gemma Scope reader opens.

One directory holds one layer's suite. Each member's folder holds the five
arrays of Gemma Scope's `params.npz` and, beside it, what Gemma Scope's files
lack: the config that made it, its evaluation, and test vectors (held-out
activations with their latents and reconstruction) by which any reader can
check itself. `verify.py` reads it all back.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumprelu import errors
from jumprelu.evals import results
from jumprelu.files import digests, folder_kinds, formats, json_files, npz
from jumprelu.release import card, layout, records, verify
from jumprelu.release import members as members_lib
from jumprelu.release.members import list_members, load_member
from jumprelu.release.records import Member, Provenance
from jumprelu.release.verify import verify_release

__all__ = [
    'Member',
    'Provenance',
    'check_target',
    'list_members',
    'load_member',
    'member_paths',
    'verify_release',
    'write_release',
]


def member_paths(members: Sequence[Member]) -> list[str]:
  """Returns each member's folder; of equal ones, by (coefficient, seed)."""
  return layout.resolve_collisions(
      [
          layout.member_folder(
              variant=m.sae.variant, site=m.site, layer=m.reads.layer,
              width=m.sae.width, l0=float(m.results['l0']),
          )
          for m in members
      ],
      [(m.sparsity_coefficient, m.target_l0, m.seed) for m in members],
  )  # fmt: skip


def write_release(
    members: Sequence[Member],
    out: str | os.PathLike,
    *,
    provenance: Provenance,
) -> list[dict[str, Any]]:
  """Write a verified release and return its results rows, with paths.

  Everything is written beside `out` and verified there; only then it takes the
  place of `out`. Nothing is replaced but a release of the same run.
  """
  out = pathlib.Path(out).resolve()
  if not members:
    raise errors.UserError(f'{out}: a release needs at least one member')
  check_target(out, run=provenance.run)
  out.parent.mkdir(parents=True, exist_ok=True)
  paths = member_paths(members)
  with tempfile.TemporaryDirectory(
      prefix=f'.{out.name}.', dir=out.parent
  ) as scratch:
    new = pathlib.Path(scratch) / 'new'
    listed, rows = [], []
    for path, member in zip(paths, members, strict=True):
      row = records.row(member) | {'path': path}
      rows.append(row)
      _write_member(new / path, member, row, provenance)
      listed.append(
          {
              'path': path,
              **{k: row.get(k) for k in ('site', 'width', 'variant', 'l0')},
              'files': _digests(new / path),
          }
      )
    _write_suite(
        new,
        listed,
        rows=rows,
        provenance=provenance,
        input_gain=next(
            (m.input_gain for m in members if m.site == 'transcoder'), None
        ),
    )
    verify_release(new)
    _replace(out, new, old=pathlib.Path(scratch) / 'old')
  return rows


def _replace(out: pathlib.Path, new: pathlib.Path, *, old: pathlib.Path):
  """Renames `new` to `out`; what was there stays there if that fails."""
  if out.exists():
    out.rename(old)
  try:
    new.rename(out)
  except BaseException:
    if old.exists():
      old.rename(out)
    raise


def check_target(out: str | os.PathLike, *, run: str):
  """Refuse a target that holds anything but a release of this run."""
  out = pathlib.Path(out)
  folder_kinds.refuse_inside_release('out', out.absolute().parent)
  if not out.exists():
    return
  if not out.is_dir():
    raise errors.UserError(f'{out}: not a directory')
  if not any(out.iterdir()):
    return
  if not (out / layout.SUITE).is_file():
    raise errors.UserError(
        f'{out}: not empty and no release; choose another --out'
    )
  suite = members_lib.read_suite(out)
  if suite.get('run') != run:
    raise errors.UserError(
        f'{out}: holds a release of another run; choose another --out'
    )
  extra = verify.unlisted_files(out, suite)
  if extra:
    raise errors.UserError(
        f'{out}: {extra[0]} is not part of the release and would be lost; move'
        ' it or choose another --out'
    )


def _write_member(
    folder: pathlib.Path,
    member: Member,
    row: Mapping[str, Any],
    provenance: Provenance,
):
  folder.mkdir(parents=True)
  params = {k: np.asarray(v) for k, v in member.params.items()}
  npz.write_npz(folder / layout.PARAMS, params)
  # The language model is not at hand for a reader: the inputs are stored. Full
  # float32, for an accelerator's default would round the products.
  with jax.default_matmul_precision('float32'):
    inputs = jnp.asarray(member.inputs)
    latents = member.sae.encode(dict(member.params), inputs)
    reconstruction = member.sae.decode(dict(member.params), latents, inputs)
  npz.write_npz(
      folder / layout.TEST_VECTORS,
      {
          'x': np.asarray(member.inputs, np.float32),
          'latents': np.asarray(latents),
          'reconstruction': np.asarray(reconstruction),
      },
  )
  if member.firing_frequency is not None:
    np.save(
        folder / layout.FIRING_FREQUENCY,
        np.asarray(member.firing_frequency, np.float32),
    )
  json_files.write_json(folder / layout.RESULTS, row)
  json_files.write_json(
      folder / layout.CONFIG,
      records.member_config(member, params, provenance)
      | {'sha256': digests.sha256_of(folder / layout.PARAMS)},
  )


def _write_suite(
    new: pathlib.Path,
    listed: list[dict[str, Any]],
    *,
    rows: list[dict[str, Any]],
    provenance: Provenance,
    input_gain: bool | None,
):
  results.write(rows, new / layout.ALL_RESULTS)
  files = _digests(new)
  (new / layout.CARD).write_text(
      card.render(
          rows,
          model=provenance.model,
          layer=provenance.layer,
          corpus=provenance.corpus,
          command=provenance.command,
          licence=provenance.licence,
          versions=records.versions(),
          input_gain=input_gain,
      ),
      encoding='utf-8',
  )
  json_files.write_json(
      new / layout.SUITE,
      {
          **formats.stamp(formats.Kind.RELEASE_SUITE),
          'model': provenance.model,
          'layer': provenance.layer,
          'run': provenance.run,
          'members': listed,
          # People edit the card: it is listed without a digest.
          'files': files | {layout.CARD: None},
      },
  )


def _digests(folder: pathlib.Path) -> dict[str, str]:
  return {
      p.name: digests.sha256_of(p)
      for p in sorted(folder.iterdir())
      if p.is_file()
  }
