"""The SAEs from which the members of a new run start (`--init_from`)."""

from collections.abc import Mapping, Sequence
import os
from typing import Any, NamedTuple

import jax.numpy as jnp

from jumprelu import errors
from jumprelu.files import digests, folder_kinds, remote
from jumprelu.release import formats
from jumprelu.release.formats import record
from jumprelu.training import config as config_lib
from jumprelu.training import initial, load_run, suite


class _Candidate(NamedTuple):
  """An SAE of the folder, and the fields by which members choose."""

  source: initial.Source
  origin: record.Origin
  # Fields of `suite.Member`, as far as they are known.
  fields: Mapping[str, Any]


def find(config: config_lib.TrainConfig) -> initial.Sources:
  """Returns a source for each member of a config's suite.

  Candidates have the member's site, width and variant, and its layer if their
  files name one. Of several, that with the member's sparsity coefficient,
  target L0 and seed is chosen, or the only one with the same coefficient and
  target.

  Raises:
    UserError: A member has no source or several, or a source does not fit.
    MissingInputError, DataError: The folder is missing or damaged.
  """
  folder = os.path.expanduser(config.init_from)
  remote.local('init_from', folder)
  candidates = _candidates(folder)
  sources = {}
  for group in load_run.make_suite(config):
    fitting = [c for c in candidates if _fits(c, group)]
    sources[group.name] = [
        _choose(fitting, member, config, candidates) for member in group.members
    ]
    for source in sources[group.name]:
      initial.check(source, group.sae)
  return sources


def _candidates(folder: str) -> list[_Candidate]:
  if folder_kinds.is_run(folder):
    return [_of_run(folder, m) for m in load_run.load_suite(folder)]
  return [
      _Candidate(
          initial.Source(
              os.path.join(folder, path), sae.sae, sae.params, sae.digest()
          ),
          sae.origin,
          sae.meta,
      )
      for path, sae in formats.find(folder).items()
  ]


def _of_run(folder: str, trained: load_run.TrainedMember) -> _Candidate:
  sae, params = trained.sae.fold(
      {name: jnp.asarray(x) for name, x in trained.params.items()},
      input_scale=trained.input_scale,
      target_scale=trained.target_scale,
  )
  member, reads = trained.member, trained.reads
  return _Candidate(
      initial.Source(
          f'{folder} ({trained.name})', sae, params, digests.tree_digest(params)
      ),
      record.Origin(layer=member.layer, site=member.site,
                    input_gain=reads.input_gain),
      {'sparsity_coefficient': member.sparsity_coefficient,
       'target_l0': member.target_l0, 'seed': member.seed},
  )  # fmt: skip


def _fits(candidate: _Candidate, group: suite.Group) -> bool:
  member, origin, sae = group.members[0], candidate.origin, candidate.source.sae
  is_transcoder = group.reads.is_transcoder
  return (
      origin.site in (None, member.site)
      and origin.layer in (None, member.layer)
      and (sae.width, sae.variant) == (member.width, member.variant)
      and not (
          is_transcoder and origin.input_gain is (not group.reads.input_gain)
      )
  )


def _choose(
    fitting: Sequence[_Candidate],
    member: suite.Member,
    config: config_lib.TrainConfig,
    candidates: Sequence[_Candidate],
) -> initial.Source:
  """Returns the source of a member."""
  several = list(fitting)
  for names in (('sparsity_coefficient', 'target_l0'), ('seed',)):
    if len(several) > 1:
      several = [
          c
          for c in several
          if all(c.fields.get(n) == getattr(member, n) for n in names)
      ]
  if len(several) == 1:
    return several[0].source
  where = f'--init_from={config.init_from}'
  wanted = suite.member_name(member)
  if fitting:
    paths = ', '.join(c.source.path for c in fitting)
    raise errors.UserError(
        f'{where}: {len(fitting)} SAEs fit {wanted}, and none or several have'
        f' its sparsity and seed; name the folder of one: {paths}'
    )
  known = ', '.join(
      f'{c.origin.site} layer {c.origin.layer} {c.source.sae.width}'
      f' {c.source.sae.variant}'
      for c in candidates
  )
  raise errors.UserError(
      f'{where}: no SAE for {wanted} at layer {member.layer}; it has {known}'
  )
