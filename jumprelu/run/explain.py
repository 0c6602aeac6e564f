"""Explains latents in words, and scores how well that predicts their firing.

Reads a folder of features, and writes a set of explanations into it, which
`jumprelu explore` shows on the page. Half of the documents serve to make the
explanations, and the others to score them. Without further flags, explanations
are rules (tokens, n-grams, kinds of tokens, positions, promoted tokens), which
are fitted and judged on this computer without a language model.

  jumprelu explain --features=jumprelu_demo/features

With --llm, a language model explains latents and judges explanations. Answers
are kept in a file, so a stopped command resumes, and no prompt is sent twice.

  jumprelu explain --features=DIR --llm=file --explain.latents=50

writes the prompts to explanations/NAME/prompts.jsonl in the folder of features.
Let any program answer them, as lines {"id": ..., "text": ...}, and pass them by
--llm_answers=FILE to the same command; it then writes further prompts or the
scores.

  jumprelu explain --features=DIR --llm=url --llm_url=http://localhost:8000/v1
    --llm_model=NAME --explain.latents=50

sends the prompts to a server with the API of OpenAI, such as vLLM, llama.cpp or
Ollama; the key, if it needs one, is read from $JUMPRELU_LLM_KEY.
--llm=command runs --llm_command, which reads prompts from stdin and writes
answers to stdout. --llm=local uses --llm_model as in other commands, such as
gemma2_2b.
"""

import functools
import os
import pathlib
import shlex
import sys
from typing import Any

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.files import remote, wording
from jumprelu.run import main

POSITIONAL = 'features'
EXTRA = 'train'
MAIN_FLAGS = (
    'features',
    'members',
    'name',
    'llm',
    'llm_model',
    'llm_url',
    'llm_command',
    'llm_answers',
    'explainer',
    'judge',
    'explain.latents',
)
_LLMS = ('none', 'file', 'url', 'command', 'local')
# The flags that each kind of language model needs.
_NEEDED = {
    'url': ('llm_url', 'llm_model'),
    'command': ('llm_command',),
    'local': ('llm_model',),
}
# The kinds of language model that each flag is for.
_READ_BY = {
    'llm_url': ('url',),
    'llm_command': ('command',),
    'llm_answers': ('file',),
    'llm_model': ('file', 'url', 'command', 'local'),
}


def define_flags(fv: absl_flags.FlagValues) -> None:
  """Declares the command's flags."""
  from jumprelu import explain
  from jumprelu.run import flags

  string = functools.partial(absl_flags.DEFINE_string, flag_values=fv)
  string('features', None, 'Folder of `jumprelu features`.')
  flags.define_members(fv)
  string(
      'name', None, 'Name of the set (default: rules, or that of the model).'
  )
  choice = functools.partial(absl_flags.DEFINE_enum, flag_values=fv)
  choice('llm', 'none', _LLMS, 'Language model; none: rules alone.')
  string('llm_model', None, 'Name of the language model.')
  string(
      'llm_url', None, 'Address of the API, such as http://localhost:8000/v1.'
  )
  string(
      'llm_command',
      None,
      'Program and arguments. They are split at spaces, with quotes as in a'
      ' shell, but no shell is started: variables and pipes do not work.',
  )
  string('llm_answers', None, 'File with answers to prompts, for --llm=file.')
  flags.define_integer(
      fv, 'llm_tokens', 1024, 'Tokens of an answer, at most.', lower_bound=1
  )
  flags.define_integer(
      fv, 'llm_parallel', 4, 'Requests to the server at a time.', lower_bound=1
  )
  kinds = ['auto', 'rules', 'llm']
  choice('explainer', 'auto', kinds, 'auto: llm if there is a language model.')
  choice('judge', 'auto', kinds, 'auto: llm if there is a language model.')
  flags.define(fv, explain.Config(), prefix='explain.')


def run(fv: absl_flags.FlagValues) -> None:
  """Checks the flags, and writes the set as far as answers are known."""
  explainer, judge = _check(fv)
  from jumprelu import explain
  from jumprelu.explain import make, summary
  from jumprelu.features import reading
  from jumprelu.run import flags

  config = flags.build(fv, explain.Config(), prefix='explain.')
  features = remote.local('features', fv.features)
  paths = [m['path'] for m in reading.read_manifest(features)['members']]
  members = tuple(
      path
      for path in paths
      if not fv.members or any(text in path for text in fv.members)
  )
  if not members:
    raise errors.UserError(
        f'--members={",".join(fv.members)}: no path contains one of them; the'
        f' members are {", ".join(paths)}'
    )
  model = _model(fv, config) if fv.llm != 'none' else None
  name = fv.name or (_folder_name(model.name) if model else 'rules')
  plan = make.Plan(features, name, members, explainer, judge, config)
  result = make.make(plan, model)
  if result.pending:
    print(
        f'{result.folder / "prompts.jsonl"}:'
        f' {wording.count(result.pending, "prompt")} without an answer; write'
        ' lines {"id": ..., "text": ...} to a file, and repeat the command'
        ' with --llm_answers=FILE'
    )
    return
  print('\n'.join(summary.lines(name, result.manifest['summaries']['all'])))
  print(f'{result.folder}: complete; jumprelu explore shows it on the page')


def _check(fv: absl_flags.FlagValues) -> tuple[str, str]:
  """Returns the explainer and the judge.

  Raises:
    UserError: A flag is missing, or is not used.
  """
  problems = [] if fv.features else ['--features is needed']
  for name in _NEEDED.get(fv.llm, ()):
    if not fv[name].value:
      problems.append(f'--llm={fv.llm} needs --{name}')
  for name, kinds in _READ_BY.items():
    if fv[name].value and fv.llm not in kinds:
      problems.append(f'--{name} needs --llm={" or ".join(kinds)}')
  default = 'rules' if fv.llm == 'none' else 'llm'
  explainer, judge = (
      default if fv[name].value == 'auto' else str(fv[name].value)
      for name in ('explainer', 'judge')
  )
  if 'llm' in (explainer, judge) and fv.llm == 'none':
    problems.append('--explainer=llm and --judge=llm need --llm')
  if explainer == 'llm' and judge == 'rules':
    problems.append('--judge=rules judges --explainer=rules only')
  if fv.llm != 'none' and 'llm' not in (explainer, judge):
    problems.append(f'--llm={fv.llm} is used by neither explainer nor judge')
  if problems:
    raise errors.UserError('; '.join(problems))
  return explainer, judge


def _model(fv: absl_flags.FlagValues, config: Any) -> Any:
  """Returns the language model of the flags; only url uses the network."""
  from jumprelu.explain import llm

  if fv.llm == 'url':
    from jumprelu.explain import remote_llm

    return remote_llm.RemoteLm(
        fv.llm_url,
        name=fv.llm_model,
        key=os.environ.get(remote_llm.KEY_VARIABLE),
        tokens=fv.llm_tokens,
        parallel=fv.llm_parallel,
    )
  if fv.llm == 'command':
    try:
      arguments = shlex.split(fv.llm_command)
    except ValueError as error:
      raise errors.UserError(f'--llm_command: {error}') from error
    name = fv.llm_model or pathlib.Path(arguments[0]).name
    return llm.Command(arguments, name=name)
  if fv.llm == 'local':
    return _local(fv, config)
  return llm.Replay(fv.llm_answers, name=fv.llm_model or 'file')


def _local(fv: absl_flags.FlagValues, config: Any) -> Any:
  """Returns a language model on this computer."""
  if config.per_prompt != 1 or 'simulation' in config.kinds:
    raise errors.UserError(
        '--llm=local chooses single integers only; set --explain.per_prompt=1'
        ' --explain.kinds=detection,fuzzing,intruder'
    )
  from jumprelu.api import language_model
  from jumprelu.explain import local_llm

  return local_llm.LocalLm(language_model.load_lm(fv.llm_model))


def _folder_name(name: str) -> str:
  """Returns a model's name without characters that folders may not have."""
  kept = ''.join(c if c.isalnum() or c in '._-' else '_' for c in name)
  return kept.lstrip('.-')[:64] or 'llm'


if __name__ == '__main__':
  sys.exit(main.launch('explain'))
