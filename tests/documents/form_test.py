"""Commands, flags and fences of all documents are valid.

The commands of this project, in blocks and in the running text, are parsed by
their modules and not run; `run_test.py` runs the blocks of README and docs.
"""

import importlib.util
import pathlib
import re
import runpy
import subprocess
import sys

import pytest

from jumprelu.run import flag_help, flags, main
from jumprelu.training import config
from tests.documents import extract

# Flags in the running text that no command of this project has: why.
OTHER_FLAGS: dict[str, str] = {}
# Checks the layers of models that are not on this computer.
_DEEPEST = '--model=gemma2_27b'
_MODEL_FILE = re.compile(r'--model=(?!gemma\d_)')
_PLACEHOLDER = re.compile(r'(?<=--layer)=L$')


def _commands(document):
  text = extract.read(document)
  for block in extract.blocks(text):
    if block.language == 'sh':
      yield from extract.commands(block)
  yield from extract.inline(text)


def _modules():
  """Returns the modules of the experiments that are commands with flags."""
  names = []
  for path in sorted((extract.ROOT / 'experiments').rglob('*.py')):
    source = path.read_text('utf-8')
    if 'def define_flags(' in source and 'run_command(' in source:
      parts = path.relative_to(extract.ROOT).with_suffix('').parts
      names.append('.'.join(parts))
  return names


def _parse(command, prog, argv):
  """Parses arguments as `main.run_command` does, and runs nothing."""
  flag_values = main._new_flags()
  command.define_flags(flag_values)
  if part := flag_help.requested(argv):
    # Raises an error if there is no such section or flag.
    flag_help.text(prog, '', flag_values, part=part, main_flags=())
    return 0
  main.parse(flag_values, argv, getattr(command, 'POSITIONAL', None))
  if prog in ('jumprelu train', 'jumprelu plan'):
    if any(_MODEL_FILE.match(arg) for arg in argv):
      main.parse(flag_values, [_DEEPEST])
    without = getattr(command, 'WITHOUT', ())
    flags.build(flag_values, config.resolve(), config.resolve, without=without)
  return 0


def _check(words, monkeypatch):
  """Raises an error unless the command is valid."""
  # A placeholder such as --layer=L.
  words = [_PLACEHOLDER.sub('=1', word) for word in words]
  monkeypatch.setattr(main, 'run_command', _parse)
  if words[0] == 'jumprelu':
    assert main.main(words[1:]) == 0
  elif words[:2] == ['python', '-m']:
    spec = importlib.util.find_spec(words[2])
    assert spec is not None
    if spec.submodule_search_locations:
      spec = importlib.util.find_spec(words[2] + '.__main__')
    source = pathlib.Path(spec.origin).read_text('utf-8')
    if not re.search(r'run_command\(|figure_main\(|command\.main\(', source):
      names = re.findall(r'--(\w+)', ' '.join(words[3:]))
      assert set(names) <= _defined(source), 'the module has no such flag'
      return
    monkeypatch.setattr(sys, 'argv', words[2:])
    with pytest.raises(SystemExit) as ended:
      runpy.run_module(words[2], run_name='__main__', alter_sys=True)
    assert not ended.value.code
  elif words[0] == 'python' and words[1] != '-c':
    assert (extract.ROOT / words[1]).is_file()
  elif words[:2] == ['pip', 'install']:
    setup = (extract.ROOT / 'setup.py').read_text('utf-8')
    for extra in re.findall(r'\[(.*?)\]', ' '.join(words)):
      assert re.search(rf"^    '{extra}': ", setup, re.MULTILINE), extra


@pytest.mark.filterwarnings('ignore:.*prior to execution of:RuntimeWarning')
@pytest.mark.parametrize('document', extract.DOCUMENTS)
def test_every_command_of_a_document_is_valid(document, monkeypatch):
  wrong = []
  for command in _commands(document):
    try:
      _check(command.words, monkeypatch)
    except (Exception, SystemExit) as error:
      shown = ' '.join(command.words)
      wrong.append(f'{document}:{command.line}: {shown}: {error!r}')
  assert not wrong, '\n'.join(wrong)


def _defined(source):
  """Returns the flags that a module declares when it is imported."""
  return set(re.findall(r"DEFINE_\w+\(\s*'(\w+)'", source))


def _known_flags():
  modules = [f'jumprelu.run.{name}' for name in main.COMMANDS] + _modules()
  names = set(OTHER_FLAGS)
  for name in modules:
    flag_values = main._new_flags()
    importlib.import_module(name).define_flags(flag_values)
    names |= set(flag_values)
  for path in (extract.ROOT / 'experiments').rglob('*.py'):
    names |= _defined(path.read_text('utf-8'))
  return names


def test_every_flag_in_the_running_text_exists():
  known = _known_flags()
  wrong = []
  for document in extract.DOCUMENTS:
    for name in extract.flags(extract.read(document)):
      # --sae.NAME.FIELD describes many flags.
      pattern = re.sub(r'\b[A-Z]+\b', r'\\w+', re.escape(name)) + '$'
      options = {*known, *(f'no{flag}' for flag in known)}
      if not any(re.match(pattern, flag) for flag in options):
        wrong.append(f'{document}: --{name}')
  assert not wrong, wrong


@pytest.mark.parametrize('document', extract.DOCUMENTS)
def test_every_block_has_a_language_that_is_tested_and_valid_syntax(document):
  for block in extract.blocks(extract.read(document)):
    place = f'{document}:{block.line}'
    assert block.language in extract.LANGUAGES, place
    if block.language == 'python':
      compile(block.text, place, 'exec')
    if block.language == 'sh' and not block.text.startswith('$ '):
      subprocess.run(
          ['/bin/bash', '-n', '-c', block.text], check=True, timeout=60
      )
      for command in extract.commands(block):
        assert command.words[0] in extract.PROGRAMS, (place, command)


def _anchors(path):
  """Returns the anchors of a document's headings, as GitHub makes them."""
  headings = re.findall(r'^#+ (.*)$', path.read_text('utf-8'), re.MULTILINE)
  return {
      re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')
      for heading in headings
  }


@pytest.mark.parametrize('document', extract.DOCUMENTS)
def test_every_link_to_a_heading_has_its_heading(document):
  path = extract.ROOT / document
  links = re.findall(r'\]\(([\w./-]*)#([^)]+)\)', extract.read(document))
  for name, anchor in links:
    target = path.parent / name if name else path
    assert anchor in _anchors(target), f'{document}: {name}#{anchor}'


def test_wrong_commands_are_reported(monkeypatch):
  for wrong in (
      'jumprelu train --no_such_flag=1',
      'jumprelu no_such_command',
      'jumprelu train --tokens=many',
      'jumprelu evaluate --help=no_such_section',
      'python -m experiments.all --no_such_flag',
      "pip install '.[no_such_extra]'",
      'python experiments/no_such_file.py',
  ):
    (command,) = _read(f'    {wrong}\n')
    with pytest.raises((Exception, SystemExit)):
      _check(command.words, monkeypatch)


def _read(text):
  return [c for b in extract.blocks(text) for c in extract.commands(b)]


def test_commands_are_read_with_their_lines():
  text = (
      'Text `jumprelu verify\nDIR` and `--out` of\n`jumprelu train`.\n\n'
      '    jumprelu train --a=1 \\\n        --b="x y"  # comment\n'
      '    pip install . && A=1 pytest\n\n'
      '    not a command\n\n'
      '```python\nx = 1\n```\n\n'
      '    $ jumprelu demo\n    jumprelu: output\n'
  )
  read = [(b.line, b.language) for b in extract.blocks(text)]
  assert read == [(5, 'sh'), (9, 'text'), (12, 'python'), (15, 'sh')]
  shells = [b for b in extract.blocks(text) if b.language == 'sh']
  assert [(c.line, c.words) for b in shells for c in extract.commands(b)] == [
      (5, ('jumprelu', 'train', '--a=1', '--b=x y')),
      (7, ('pip', 'install', '.')),
      (7, ('pytest',)),
      (15, ('jumprelu', 'demo')),
  ]
  assert [(c.line, c.words[1:]) for c in extract.inline(text)] == [
      (1, ('verify', 'DIR')),
      (3, ('train',)),
  ]
  assert extract.flags(text) == {'out'}


def test_documents_of_later_folders_are_read():
  assert {'README.md', 'docs/features.md'} < set(extract.DOCUMENTS)
