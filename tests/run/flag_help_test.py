"""Help texts: short, of one section, and of all flags."""

import re

import pytest

from jumprelu.evals import measures
from jumprelu.run import main, train

_LARGE = ('train', 'plan', 'evaluate', 'features', 'harvest')


def _help(capsys, *argv):
  assert main.main(argv) == 0
  return capsys.readouterr().out


def _names(text):
  """Returns the names of the flags that a help text describes."""
  return re.findall(r'^  --(?:\[no\])?([\w.]+)', text, re.MULTILINE)


@pytest.mark.parametrize('command', _LARGE)
def test_the_help_of_a_large_command_fits_on_a_page(capsys, command):
  text = _help(capsys, command, '--help')
  lines = text.splitlines()
  assert lines[0].startswith(f'jumprelu {command}: ')
  assert len(lines) <= 70
  assert f'\nusage: jumprelu {command} [--flag=value ...]\n' in text
  more = text.partition('\nmore flags:\n')[2]
  assert '--help=corpus ' in more
  assert more.splitlines()[-1].split() == ['--helpfull', 'all', 'flags']


def test_the_help_of_train_describes_the_main_flags_and_names_all_others(
    capsys,
):
  text, _, more = _help(capsys, 'train', '--help').partition('more flags:')
  assert tuple(_names(text)) == train.MAIN_FLAGS
  every = _names(_help(capsys, 'train', '--helpfull'))
  words = set(re.findall(r'[\w.]+', more))
  for name in every:
    if name not in (*train.MAIN_FLAGS, 'help', 'helpfull', 'debug'):
      assert name.partition('.')[0] in words, name


@pytest.mark.parametrize('command', main.COMMANDS)
def test_every_help_fits_on_a_page(capsys, command):
  assert len(_help(capsys, command, '--help').splitlines()) <= 70


@pytest.mark.parametrize(
    'part, prefix',
    [
        ('sae.gated', 'sae.gated.'),
        ('sae.', 'sae.'),
        ('optim', 'optim.'),
        ('--stream', 'stream.'),
        # The end of a path.
        ('gated', 'sae.gated.'),
        ('learning_rate', 'optim.learning_rate'),
        ('widths', 'widths'),
    ],
)
def test_help_of_a_part_describes_all_its_flags_and_no_others(
    capsys, part, prefix
):
  every = _names(_help(capsys, 'train', '--helpfull'))
  text = _help(capsys, 'train', f'--help={part}')
  assert _names(text) == [name for name in every if name.startswith(prefix)]
  assert 'usage' not in text


@pytest.mark.parametrize('command', main.COMMANDS)
def test_help_has_no_remains_of_absl(capsys, command):
  text = _help(capsys, command, '--helpfull')
  assert 'comma separated list' not in text
  # The choices of a flag are beside its name only.
  assert not re.search(r'<\w+\|', text)
  # A heading is a path and its description.
  assert not re.search(r'^[\w.]+\.:', text, re.MULTILINE)
  # The first word is a verb in the third person.
  verb = text.removeprefix(f'jumprelu {command}: ').partition(' ')[0]
  assert verb.strip(',').endswith('s')


@pytest.mark.parametrize('command', main.COMMANDS)
def test_full_help_describes_each_flag_once_within_80_columns(capsys, command):
  text = _help(capsys, command, '--helpfull')
  names = _names(text)
  assert len(names) == len(set(names))
  assert max(map(len, text.splitlines())) <= 80
  assert names[-3:] == ['help', 'helpfull', 'debug']
  # A flag of a single section is described on request too.
  for name in names[:-3]:
    assert name in _names(_help(capsys, command, f'--help={name}'))


@pytest.mark.parametrize(
    'part, words',
    [
        ('optin', 'did you mean optim'),
        ('lr', 'did you mean optim.learning_rate?'),
        ('zzz', '; the sections are sae, optim, stream, corpus'),
    ],
)
def test_help_of_an_unknown_part_exits_2_with_the_nearest(capsys, part, words):
  assert main.main(['train', f'--help={part}']) == 2
  error = capsys.readouterr().err
  assert f'--help={part}: no flag and no section' in error
  assert words in error and error.count('\n') == 1


def test_each_measure_is_described_with_its_cost(capsys):
  text = _help(capsys, 'evaluate', '--help=measures')
  starts = re.findall(r'^ {8}(\w+): \S', text, re.MULTILINE)
  assert starts == list(measures.MEASURES)
  joined = ' '.join(text.split())
  assert joined.count(' Cost: ') == len(starts)
  assert 'kl: KL divergence between clean and spliced predictions.' in joined
  assert 'minutes at 16,384; reads no text' in joined


def test_the_short_help_refers_to_the_description_of_the_measures(capsys):
  text = _help(capsys, 'evaluate', '--help')
  assert '--help=measures describes them.' in text
  assert 'Cost:' not in text


def test_the_flags_of_a_store_have_their_own_heading(capsys):
  text = _help(capsys, 'harvest', '--helpfull')
  assert '\nflags for --store:\n  --layers=INT,...\n' in text
  assert 'training run' not in text.partition('usage:')[2]


@pytest.mark.parametrize('command', _LARGE)
def test_a_default_is_shown_for_flags_that_have_one(capsys, command):
  text = _help(capsys, command, '--helpfull')
  for entry in re.findall(r'^  --\[no\][^\n]*\n(?: {6}.*\n)+', text, re.M):
    # The gain is that of the published SAE.
    if command in ('train', 'plan') or 'input_gain' not in entry:
      assert '(default:' in ' '.join(entry.split()), entry


def test_the_help_of_data_names_every_kind_of_text(capsys):
  text = ' '.join(_help(capsys, 'train', '--help=data').split())
  for kind in ('stdlib (', 'python (', 'folder', 'tfds:NAME', 'tokens:FOLDER'):
    assert kind in text
