"""Config trees: dotted paths, JSON round trip, and errors that name fields."""

import dataclasses
import enum
from typing import Literal

import pytest

from jumprelu import errors
from jumprelu.files import dotted


class Colour(enum.StrEnum):
  RED = 'red'
  BLUE = 'blue'


@dataclasses.dataclass(frozen=True)
class Part:
  rate: float = 0.1
  steps: int | None = None
  kind: Literal['log', 'linear'] = 'log'

  def __post_init__(self):
    if self.rate <= 0:
      raise ValueError(f'rate is {self.rate}: it must be positive')


@dataclasses.dataclass(frozen=True)
class Whole:
  name: str = 'a'
  widths: tuple[int, ...] = (1,)
  colour: Colour = Colour.RED
  on: bool = True
  part: Part = Part()

  def __post_init__(self):
    if not self.name:
      raise ValueError('name is empty')


def test_leaves_are_listed_by_dotted_path_in_order():
  assert list(dotted.leaves(Whole())) == [
      'name',
      'widths',
      'colour',
      'on',
      'part.rate',
      'part.steps',
      'part.kind',
  ]


def test_replace_reaches_into_parts_and_leaves_the_rest():
  changed = dotted.replace(Whole(), {'part.rate': 0.5, 'widths': (2, 3)})
  assert changed == Whole(widths=(2, 3), part=Part(rate=0.5))


def test_replace_reports_every_problem_at_once():
  with pytest.raises(errors.UserError) as caught:
    dotted.replace(Whole(), {'part.rate': -1.0, 'name': '', 'widht': (1,)})
  text = str(caught.value)
  assert 'part: rate is -1.0' in text
  assert 'name is empty' in text
  assert "unknown field 'widht' (did you mean widths?)" in text


@pytest.mark.parametrize(
    'config',
    [
        Whole(),
        Whole('b', (3, 1, 2), Colour.BLUE, False, Part(1 / 3, 7, 'linear')),
        Whole(widths=(), part=Part(5e-324)),
    ],
)
def test_json_round_trip_is_exact(config):
  assert dotted.from_json(Whole(), dotted.to_json(config)) == config


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda d: d.update(extra=1), "unknown field 'extra'"),
        (
            lambda d: d['part'].update(raet=1),
            r"'part.raet' \(did you mean part",
        ),
        (lambda d: d['part'].pop('kind'), "field 'part.kind' is missing"),
        (lambda d: d.update(part=3), "field 'part.rate' is missing"),
        (lambda d: d.update(on=1), 'on: 1 is not of type bool'),
        (
            lambda d: d['part'].update(rate=10**400),
            'rate: more digits than a number can have',
        ),
        (lambda d: d.update(widths=[1.5]), 'widths: 1.5 is not of type int'),
        (lambda d: d.update(widths='12'), "widths: '12' is not a list"),
        (lambda d: d.update(colour='green'), 'none of red, blue'),
        (lambda d: d['part'].update(kind='sine'), 'none of log, linear'),
    ],
)
def test_a_config_that_does_not_fit_names_the_field(change, message):
  data = dotted.to_dict(Whole())
  change(data)
  with pytest.raises(errors.UserError, match=message):
    dotted.from_dict(Whole(), data)


def test_text_without_a_json_object_is_damaged_data():
  digits = '{"on": ' + '9' * 5000 + '}'
  for text in ('', '{', '[1]', '[' * 100_000, digits):
    with pytest.raises(errors.DataError, match='^a: not (a )?JSON') as caught:
      dotted.from_json(Whole(), text, where='a')
    assert '\n' not in str(caught.value)


def test_a_name_with_a_dot_includes_all_paths_below_it():
  assert dotted.is_among('data', ['data'])
  assert not dotted.is_among('data_format', ['data'])
  assert dotted.is_among('mesh.data', ['data', 'mesh.'])
  assert not dotted.is_among('mesh', ['mesh.'])
  assert not dotted.is_among('mesh_axes.data', ['mesh.'])
