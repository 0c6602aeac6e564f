"""Flags of a toy config."""

import dataclasses
import enum
from typing import Literal

from absl import flags as absl_flags
import pytest

from jumprelu import errors
from jumprelu.files import dotted
from jumprelu.run import flags


class Colour(enum.StrEnum):
  RED = 'red'
  BLUE = 'blue'


def _field(default, text):
  return dataclasses.field(default=default, metadata={'help': text})


@dataclasses.dataclass(frozen=True)
class Part:
  """Speed of the toy."""

  rate: float = _field(0.1, 'Step size.')
  warmup: int | None = _field(10, 'Steps of warm-up.')
  kind: Literal['log', 'linear'] = _field('log', 'The scale.')

  def __post_init__(self):
    if self.rate <= 0:
      raise errors.UserError(f'part.rate is {self.rate}: must be positive')


@dataclasses.dataclass(frozen=True)
class Whole:
  tokens: int = _field(1000, 'How many.')
  widths: tuple[int, ...] = _field((16, 32), 'How wide.')
  names: tuple[str, ...] = _field(('a',), 'Which.')
  targets: tuple[float, ...] = _field((), 'Targets, if any.')
  colour: Colour = _field(Colour.RED, 'Which colour.')
  resume: bool = _field(True, 'Whether to resume.')
  part: Part = Part()


def _build(*argv, config=None, make=None, prefix=''):
  flag_values = absl_flags.FlagValues()
  flags.define(flag_values, config or Whole(), prefix=prefix)
  flag_values(['test', *argv])
  return flags.build(flag_values, config or Whole(), make, prefix=prefix)


def test_no_flags_give_the_config_itself():
  assert _build() == Whole()


@pytest.mark.parametrize(
    'flag, changes',
    [
        ('--tokens=2_000_000', {'tokens': 2000000}),
        ('--tokens=1e6', {'tokens': 1000000}),
        ('--tokens=2M', {'tokens': 2000000}),
        ('--tokens=500k', {'tokens': 500000}),
        ('--tokens=1B', {'tokens': 10**9}),
        ('--tokens=1.5m', {'tokens': 1500000}),
        ('--part.warmup=1e3', {'part.warmup': 1000}),
        ('--widths=1e3,64', {'widths': (1000, 64)}),
        ('--widths=64, 128', {'widths': (64, 128)}),
        ('--names=', {'names': ()}),
        ('--widths=none', {'widths': ()}),
        ('--targets=20,50', {'targets': (20.0, 50.0)}),
        ('--colour=blue', {'colour': Colour.BLUE}),
        ('--noresume', {'resume': False}),
        ('--resume=false', {'resume': False}),
        ('--part.rate=3e-4', {'part.rate': 3e-4}),
        ('--part.warmup=none', {'part.warmup': None}),
        ('--part.kind=linear', {'part.kind': 'linear'}),
    ],
)
def test_a_flag_changes_only_its_leaf(flag, changes):
  before, after = dotted.leaves(Whole()), dotted.leaves(_build(flag))
  changed = {
      path: leaf.value
      for path, leaf in after.items()
      if leaf.value != before[path].value
  }
  assert changed == changes


def test_only_present_flags_are_passed_to_make():
  seen = {}
  # A flag with the default value is present too, and overrides a recipe.
  _build('--tokens=1000', make=lambda values: seen.update(values) or Whole())
  assert seen == {'tokens': 1000}


def test_one_message_names_every_bad_value():
  with pytest.raises(errors.UserError) as caught:
    _build(
        '--tokens=many',
        '--widths=1,x',
        '--colour=green',
        '--resume=maybe',
        '--part.kind=sine',
        '--part.rate=-1',
    )
  text = str(caught.value)
  for part in (
      "--tokens: 'many' is not an integer",
      "--widths: 'x' is not an integer",
      "--colour: 'green' is none of red, blue",
      "--resume: 'maybe' is neither true nor false",
      "--part.kind: 'sine' is none of log, linear",
      'part.rate is -1.0: must be positive',
  ):
    assert part in text


@pytest.mark.parametrize(
    'text', ['1.5', '1e-3', 'k', '2MM', 'inf', 'nan', '1e999999999', '', '2 x']
)
def test_other_texts_are_not_integers(text):
  with pytest.raises(ValueError, match='is not an integer'):
    flags.parse_integer(text)


def test_a_long_value_is_shortened_in_messages():
  for parse in (int, float, bool):
    with pytest.raises(ValueError, match='is n') as caught:
      flags.parse_text(parse, '9' * 5000 + 'x')
    assert len(str(caught.value)) < 100


def test_a_width_of_16k_is_refused_because_it_might_be_16_384():
  with pytest.raises(errors.UserError, match='16_000') as caught:
    _build('--widths=16k,32')
  assert "--widths: '16k': write all digits" in str(caught.value)


def test_integer_flags_outside_configs_have_multiples_and_bounds():
  flag_values = absl_flags.FlagValues()
  flags.define_integer(flag_values, 'n', 3, 'How many.', lower_bound=2)
  flag_values(['test', '--n=20k'])
  assert flag_values.n == 20_000
  for text in ('1', 'many', '2.5'):
    with pytest.raises(absl_flags.Error, match=text):
      flag_values(['test', f'--n={text}'])


def test_a_prefix_precedes_every_path():
  assert _build('--eval.part.rate=2', prefix='eval.').part.rate == 2.0


def test_help_joins_recipes_with_the_same_value():
  flag_values = absl_flags.FlagValues()
  large = Whole(tokens=4_000_000_000)
  flags.define(
      flag_values,
      Whole(),
      alternatives={'paper': large, 'paper_it': large},
      title='flags of the toy',
  )
  assert flag_values['tokens'].help == (
      'How many. (default: 1000; paper, paper_it: 4_000_000_000)'
  )
  assert 'flags of the toy' in flag_values.flags_by_module_dict()


def test_help_shows_text_default_and_values_of_recipes():
  flag_values = absl_flags.FlagValues()
  flags.define(
      flag_values,
      Whole(),
      alternatives={'paper': Whole(tokens=4_000_000_000)},
  )
  assert flag_values['tokens'].help == (
      'How many. (default: 1000; paper: 4_000_000_000)'
  )
  assert flag_values['widths'].help == 'How wide. (default: 16,32)'
  assert flag_values['targets'].help == 'Targets, if any. (default: none)'
  groups = flag_values.flags_by_module_dict()
  assert 'part: Speed of the toy' in groups


@pytest.mark.parametrize('leaf', dotted.leaves(Whole()).values())
def test_a_shown_default_is_parsed_back(leaf):
  assert flags.parse_text(leaf.type, flags.show(leaf.value)) == leaf.value
