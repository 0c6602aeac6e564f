"""Sets of explanations in a folder of features.

FEATURES/explanations/NAME/manifest.json    identity, settings, summary
FEATURES/explanations/NAME/members/PATH.parquet  a row per explained latent
FEATURES/explanations/NAME/prompts.jsonl    prompts without an answer
FEATURES/explanations/NAME/answers.jsonl    answers, by id of the prompt
"""

from collections.abc import Mapping, Sequence
import json
import pathlib
import re
from typing import Any

from jumprelu import errors, explain, extras
from jumprelu.explain import prompts, scoring, summary
from jumprelu.features import arrow, reading
from jumprelu.files import formats, json_files

PROMPTS, ANSWERS = 'prompts.jsonl', 'answers.jsonl'


def open_set(
    features: pathlib.Path, name: str, identity: Mapping[str, Any]
) -> pathlib.Path:
  """Returns the folder of a set; it is created if it does not exist.

  Raises:
    UserError: The name is not one of a folder, or the set exists with other
      settings.
  """
  if not re.fullmatch(r'\w[\w.-]{0,63}', name):
    raise errors.UserError(
        f'--name={name}: use up to 64 letters, digits and ._-'
    )
  folder = features / reading.EXPLANATIONS / name
  identity = json_files.to_plain(identity)
  stored = reading.read_explanation_set(folder)
  if stored and (
      different := [k for k in identity if stored.get(k) != identity[k]]
  ):
    raise errors.UserError(
        f'{folder}: has explanations with another {different[0]}; choose another'
        ' --name, or delete that folder'
    )
  if not stored:
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, identity, None)
  return folder


def write_manifest(
    folder: pathlib.Path,
    identity: Mapping[str, Any],
    summaries: Mapping[str, Any] | None,
) -> dict[str, Any]:
  """Writes and returns the manifest; the set is complete with summaries."""
  manifest = json_files.to_plain(
      {
          **formats.stamp(formats.Kind.EXPLANATIONS),
          **identity,
          'complete': summaries is not None,
          'summaries': summaries,
      }
  )
  json_files.write_json(folder / reading.MANIFEST, manifest, seal=True)
  return manifest


def write_prompts(
    folder: pathlib.Path, requests: Sequence[prompts.Request]
) -> None:
  """Writes the prompts without an answer; without any, there is no file."""
  path = folder / PROMPTS
  if not requests:
    path.unlink(missing_ok=True)
    return
  lines = [json.dumps(request.to_json()) + '\n' for request in requests]
  json_files.write_text(path, ''.join(lines))


def row(
    member: str,
    latent: int,
    *,
    explanation: str | None,
    rule: str,
    scores: Mapping[str, scoring.Score],
    single_token: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns the row of a latent."""
  return {
      'member': member,
      'latent': latent,
      'explanation': explanation,
      'rule': rule,
      **{kind: scores[kind]._asdict() for kind in explain.KINDS},
      'single_token': dict(single_token),
  }


def write_member(
    folder: pathlib.Path, file: str, rows: Sequence[Mapping[str, Any]]
) -> None:
  """Writes the rows of a member's latents."""
  with extras.imports():
    import pyarrow

  score = pyarrow.struct(
      [
          *((name, pyarrow.float64()) for name in ('score', 'low', 'high')),
          *((name, pyarrow.int32()) for name in ('count', 'unparsable')),
      ]
  )
  token = pyarrow.struct(
      [
          ('token', pyarrow.int32()),
          *((name, pyarrow.float64()) for name in ('detection', 'fuzzing')),
      ]
  )
  text = pyarrow.string()
  types = {
      'member': text,
      'latent': pyarrow.int32(),
      'explanation': text,
      'rule': text,
      **dict.fromkeys(explain.KINDS, score),
      'single_token': token,
  }
  arrow.write(
      folder / file,
      {
          name: pyarrow.array([r[name] for r in rows], kind)
          for name, kind in types.items()
      },
  )


def summaries(
    features: pathlib.Path, name: str, members: Sequence[str]
) -> dict[str, Any]:
  """Returns the summary of each member, and of all under 'all'."""
  rows, by_member = [], {}
  for member in members:
    part = reading.read_explanations(features, name, member).to_pylist()
    by_member[member] = summary.summarise(part)
    rows += part
  return {'all': summary.summarise(rows), 'members': by_member}
