"""Every Python block and every command of README and docs runs.

The blocks of a document run one after another in a folder that has small
versions of all inputs (`_workplace`): a new block runs without any change here.
Sizes are reduced by the flags of `SMALL`.
"""

import json
import os
import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest

from jumprelu import lm
from jumprelu.release import write
from jumprelu.run import main
from tests import nano_release, small_release
from tests.api import conftest as api
from tests.documents import extract
from tests.lm import gguf_files, huggingface_folders

pytestmark = pytest.mark.slow

_CORPUS = ('--corpus.sequence_length=64', '--corpus.held_out_percent=40')
_EVAL = (
    *('--eval.tokens=2048', '--eval.delta_loss_tokens=1024'),
    '--eval.pca_tokens=0',
)
_STREAM = (
    *('--stream.block_positions=2048', '--stream.batch=256'),
    *('--stream.logical_shards=8', '--stream.lm_sequences=8'),
    *('--stream.batches_per_dispatch=2', '--stream.scale_tokens=1024'),
)
_TRAIN = (*_CORPUS, *_STREAM, '--tokens=4096')
# Flags that are added to a command to make it fast.
SMALL = {
    'train': (*_TRAIN, *_EVAL, '--widths=128'),
    'harvest': _TRAIN,
    'evaluate': _EVAL,
    'features': ('--tokens=4096',),
    'explore': ('--tokens=4096',),
    'explain': ('--explain.latents=2',),
    'steer': ('--tokens=4',),
}
# Command: why it does not run.
NOT_RUN = {
    'jumprelu demo': 'tests/run/demo_test.py runs it',
    'jumprelu train': 'shows the error without the extra',
}
# Only these programs run; form_test.py parses the commands of the experiments,
# and checks the others against the extras and the list of programs.
_PROGRAM = 'jumprelu'
_DEEPEST_LAYER = 2


def _steps(document):
  """Yields the Python blocks and the words of the commands, in order."""
  for block in extract.blocks(extract.read(document)):
    if block.language == 'python':
      yield block.line, block.text
    elif block.language == 'sh':
      for command in extract.commands(block):
        text = ' '.join(command.words)
        if command.words[0] == _PROGRAM and text not in NOT_RUN:
          yield command.line, command.words[1:]


DOCUMENTS = [
    document
    for document in extract.DOCUMENTS
    if document.startswith(('README', 'docs/')) and list(_steps(document))
]


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
  """Returns a folder with small versions of the inputs of all documents."""
  folder = tmp_path_factory.mktemp('documents')
  _write_texts(folder)
  release = folder / 'jumprelu_demo' / 'release'
  release.parent.mkdir()
  provenance = small_release.provenance(
      layer=api.LAYER,
      training={
          'model': 'gemma2_nano',
          'data': str(folder / 'text'),
          'corpus': {'seed': 3, 'held_out_percent': 40},
      },
  )
  members = [api.demo_member(site, i) for site in api.DEMO for i in range(3)]
  write.write_release(members, release, provenance=provenance)
  features = f'--out={folder}/jumprelu_demo/features'
  words = ('features', f'--release={release}', features, *SMALL['features'])
  assert main.main(words) == 0
  config = gguf_files.CONFIGS['gemma3']
  gguf_files.write(folder / 'my_model.gguf', config)
  huggingface_folders.add_tokenizer(
      huggingface_folders.write(folder / 'my_model', config)
  )
  params = dict(lm.load(str(folder / 'my_model')).params)
  ocp.PyTreeCheckpointer().save(folder / 'my_orbax', params)
  huggingface_folders.add_tokenizer(folder / 'my_orbax')
  return folder


def _write_texts(folder):
  rng = np.random.default_rng(0)
  for name, count in (('text', 40), ('other', 20), ('more', 10)):
    documents = [
        ' '.join(rng.choice(nano_release.WORDS, 300)) for _ in range(count)
    ]
    (folder / name).mkdir()
    for number, document in enumerate(documents):
      (folder / name / f'{number}.txt').write_text(document)
  lines = [json.dumps({'text': document}) for document in documents]
  (folder / 'more.jsonl').write_text('\n'.join(lines))
  (folder / 'essay.txt').write_text(documents[0])


@pytest.fixture
def workplace(inputs, tmp_path, monkeypatch):
  """Returns a copy of the inputs, which is the working directory."""
  folder = tmp_path / 'workplace'
  shutil.copytree(inputs, folder)
  # Placeholders of the documents.
  (folder / 'DIR2').symlink_to(folder / 'jumprelu_demo' / 'features')
  monkeypatch.chdir(folder)
  return folder


def _smaller(words):
  """Returns a command with small sizes, on inputs that exist here."""
  command, *argv = words
  is_store = any(arg.startswith('--store=') for arg in argv)
  if command == 'plan' or (command == 'harvest' and not is_store):
    return list(words)
  changed = []
  for arg in argv:
    name, _, value = arg.partition('=')
    if name == '--model' and not os.path.exists(value):
      arg = '--model=gemma2_nano'
    if name == '--layer' and not (value.isdigit() and int(value) < 3):
      arg = f'--layer={_DEEPEST_LAYER}'
    changed.append(arg)
  if command in ('train', 'harvest'):
    if not any(arg.startswith('--data=') for arg in argv):
      changed.append('--data=text')
  smaller = SMALL.get(command, ())
  if any(arg.startswith('--init_from=') for arg in argv):
    # The width is that of the source.
    smaller = [arg for arg in smaller if not arg.startswith('--widths=')]
  return [command, *changed, *smaller]


def _answer_prompts(folder):
  """Answers the prompts of `explain --llm=file`, as any program may."""
  (path,) = (folder / 'DIR2').glob('explanations/*/prompts.jsonl')
  answers = [
      {'id': json.loads(line)['id'], 'text': 'words'}
      for line in path.read_text().splitlines()
  ]
  lines = [json.dumps(answer) for answer in answers]
  (folder / 'answers.jsonl').write_text('\n'.join(lines) + '\n')


@pytest.mark.parametrize('document', DOCUMENTS)
def test_every_block_and_command_of_a_document_runs(document, workplace):
  names = {}
  for line, step in _steps(document):
    place = f'{document}:{line}'
    if isinstance(step, str):
      exec(compile(step, place, 'exec'), names)
      continue
    words = _smaller(step)
    if '--llm_answers=answers.jsonl' in words:
      _answer_prompts(workplace)
    assert main.main(words) == 0, (place, words)


def test_exceptions_are_few_and_in_use():
  assert len(NOT_RUN) <= 6 and all(NOT_RUN.values())
  commands = {
      ' '.join(command.words)
      for document in extract.DOCUMENTS
      for block in extract.blocks(extract.read(document))
      if block.language == 'sh'
      for command in extract.commands(block)
  }
  assert set(NOT_RUN) <= commands
