"""Readers of command lines, of files of prompts and of requests to a page."""

import functools
import importlib
import json
import pathlib
from typing import Any

from experiments.reliability import mutations
from experiments.reliability.readers import base
from jumprelu import data, errors
from jumprelu.data import sources
from jumprelu.evals.measures import labelled
from jumprelu.explore.serve import fields
from jumprelu.lm import source
from jumprelu.run import flags as flags_lib
from jumprelu.run import main, prompts
from jumprelu.training import config as config_lib

_TRAIN = """\
--model=gemma2_nano
--layer=1
--sites=resid_post,mlp_out
--widths=256,512
--sparsity_coefficients=1e-3,resid_post:4e-3
--target_l0=
--variants=jumprelu,topk
--seeds=0,1
--tokens=2M
--recipe=2024
--data=stdlib,a/b
--init_from=
--store=
--optim.learning_rate=1e-3
--optim.beta2=0.99
--stream.batch=512
--stream.block_positions=4_096
--stream.center=true
--corpus.sequence_length=64
--corpus.max_bad_rows=0.1
--corpus.wrap=chat
--checkpoint.every_blocks=2
--lm_dtype=auto
--jumprelu.bandwidth=0.1"""
_OTHERS = """\
--release=a
--run=a
--features=a
--out=b
--members=x,y
--model=gemma2_2b
--layer=1
--site=resid_post
--to=saelens
--k=8
--l0=30.5
--prompt=text
--tokens=2_000
--seed=1
--limit=3
--stale_minutes=10
--latents=1,2
--topology=2x2
--help
--debug"""
# The commands that take a config of training.
_TRAINS = ('train', 'plan', 'harvest')


def readers() -> list[base.Reader]:
  """Returns the readers of this file."""
  arguments = {'*': (mutations.of_arguments,)}
  lines = (mutations.of_text, mutations.of_bytes)
  return [
      base.Reader(
          'flags_train', _arguments(_TRAIN), _read_train, arguments,
          is_checked=True,
      ),
      base.Reader(
          'flags', _arguments(_OTHERS), _read_others, arguments,
          is_checked=True,
      ),
      base.Reader(
          'requests', _requests, _read_requests,
          {'*': (mutations.of_json, mutations.of_json, mutations.of_bytes)},
          is_checked=True,
      ),
      base.Reader('prompts', _prompts, _read_prompts, {'*': lines}),
      base.Reader(
          'labelled_texts', _labelled, _read_labelled,
          {'*': (mutations.of_lines, mutations.of_bytes)}, is_checked=True,
      ),
  ]  # fmt: skip


def _arguments(text: str):
  def make(folder: pathlib.Path) -> None:
    for name in main.COMMANDS:
      _command(name)
    (folder / 'arguments').write_text(text)

  return make


def _argv(folder: pathlib.Path) -> list[str]:
  # The system passes bytes that are not UTF-8 as lone surrogates.
  raw = (folder / 'arguments').read_bytes().replace(b'\0', b'')
  return raw.decode('utf-8', 'surrogateescape').split('\n')


def _read_train(folder: pathlib.Path) -> Any:
  argv = _argv(folder)
  # Each command line is read by one of the commands.
  name = _TRAINS[sum(map(len, argv)) % len(_TRAINS)]
  flag_values = _parsed(name, argv, known_only=name != 'train')
  if name != 'train':
    return None
  config = flags_lib.build(
      flag_values, config_lib.resolve(), config_lib.resolve
  )
  sources.split_paths(config.data)
  json.loads(config_lib.to_json(config))
  return config.steps, [str(m) for m in config_lib.members(config)]


def _read_others(folder: pathlib.Path) -> Any:
  argv = _argv(folder)
  names = [name for name in main.COMMANDS if name not in _TRAINS]
  name = names[sum(map(len, argv)) % len(names)]
  _parsed(name, argv, known_only=True)


def _parsed(name: str, argv: list[str], *, known_only: bool) -> Any:
  """Returns the flags of a command; with `known_only`, unknown ones are left out."""
  command, flag_values = _command(name), _flags(name)
  flag_values.unparse_flags()
  for flag in flag_values:
    flag_values[flag].unparse()
  if known_only:
    known = set(flag_values)
    argv = [a for a in argv if a.strip('-').partition('=')[0] in known]
  main.parse(flag_values, argv, getattr(command, 'POSITIONAL', None))
  main._expand_homes(flag_values)
  return flag_values


@functools.cache
def _flags(name: str) -> Any:
  """Returns the flags of a command, whose declaration is slow."""
  flag_values = main._new_flags()
  _command(name).define_flags(flag_values)
  return flag_values


@functools.cache
def _command(name: str) -> Any:
  return importlib.import_module(f'jumprelu.run.{name}')


_BODY = {
    'text': 'def f(x):',
    'members': ['a', 'b'],
    'member': 'a',
    'k': 8,
    'by': 'largest',
    'keep_error': True,
    'target': 7,
    'tokens': 20,
    'temperature': 0.5,
    'seed': 1,
    'edits': [{'latent': 1, 'op': 'add', 'value': 2.5}],
}


def _requests(folder: pathlib.Path) -> None:
  from jumprelu.explore.serve import app

  for name, checks in app._ENDPOINTS.items():
    body = {field: _BODY[field] for field in checks}
    (folder / name).write_text(json.dumps(body))


def _read_requests(folder: pathlib.Path) -> Any:
  from jumprelu.explore.serve import app

  result = {}
  for name, checks in app._ENDPOINTS.items():
    body = (folder / name).read_bytes()
    try:
      result[name] = fields.read(checks, fields.parse(body))
    except fields.Refused as error:
      raise errors.UserError(str(error)) from error
    json.dumps(result[name]).encode()
  return result


def _prompts(folder: pathlib.Path) -> None:
  (folder / 'prompts.txt').write_text('def f(x):\nclass A:\n\nimport grün\n')


def _read_prompts(folder: pathlib.Path) -> Any:
  return prompts.read(_prompt_flags(folder / 'prompts.txt'))


@functools.lru_cache(1)
def _prompt_flags(path: pathlib.Path) -> Any:
  values = _flags('steer')
  values.unparse_flags()
  values(['steer', f'--prompts={path}'])
  return values


def _labelled(folder: pathlib.Path) -> None:
  lines = [
      json.dumps({'text': f'a text {i}', 'label': 'ab'[i % 2]}) + '\n'
      for i in range(12)
  ]
  (folder / 'letters.jsonl').write_text(''.join(lines))


@functools.cache
def _layout() -> labelled.Layout:
  path = source.find(source.NANO).tokenizer_path
  return labelled.Layout(data.Tokenizer(path), 16, (5,))


def _read_labelled(folder: pathlib.Path) -> Any:
  return labelled.of_file(folder / 'letters.jsonl', _layout(), texts=10)
