"""Members have settled if L0 and FVU move by under 2 % over a doubling."""

import pytest

from experiments import settled
from jumprelu import errors
from jumprelu.plots import sheets
from jumprelu.run import main


def _row(width=512, *, tokens=200, l0=40.0, fvu=0.1, **more):
  return {
      'variant': 'jumprelu',
      'width': width,
      'l0': l0,
      'fvu': fvu,
      'training_tokens': tokens,
      **more,
  }


@pytest.mark.parametrize(
    'l0, fvu, expected',
    [
        (40.0 * 1.019, 0.1 / 1.019, True),
        (40.0 * 1.03, 0.1, False),
        (40.0 / 1.03, 0.1, False),
        (40.0, 0.103, False),
        (40.0, 0.097, False),
    ],
)
def test_a_member_has_settled_if_both_moves_are_below_2_percent(
    l0, fvu, expected
):
  half = [_row(tokens=100, l0=l0, fvu=fvu)]
  (move,) = settled.compare([_row()], half)
  assert move.settled == expected
  assert move.l0 == pytest.approx(40 / l0 - 1)
  assert move.fvu == pytest.approx(0.1 / fvu - 1)


def test_members_are_matched_in_any_order():
  full = [_row(512), _row(1024, l0=20.0)]
  half = [_row(1024, tokens=100, l0=25.0), _row(512, tokens=100)]
  moves = settled.compare(full, half)
  assert [move.l0 for move in moves] == pytest.approx([0, -0.2])
  assert [move.settled for move in moves] == [True, False]


def test_members_without_a_half_are_left_out():
  full = [_row(seed=seed) for seed in (0, 1)]
  half = [_row(seed=0, l0=50.0, tokens=100)]
  (move,) = settled.compare(full, half)
  assert move.row['seed'] == 0 and move.l0 == pytest.approx(-0.2)


def test_tables_of_other_members_or_tokens_are_refused():
  with pytest.raises(errors.UserError, match='that the first lacks'):
    settled.compare([_row(512)], [_row(256, tokens=100)])
  with pytest.raises(errors.UserError, match='100 is not twice 200'):
    settled.compare([_row(tokens=100)], [_row(tokens=200)])


def _run(*paths):
  return main.run_command(settled, 'python -m experiments.settled', paths)


def test_the_command_prints_a_line_per_member(tmp_path, capsys):
  paths = [str(tmp_path / name) for name in ('full.csv', 'half.csv')]
  text = {'train_fvu': 0.09, 'dead_share': 0.25}
  sheets.write_csv([_row(**text), _row(1024, fvu=0.09)], paths[0])
  sheets.write_csv(
      [_row(tokens=100), _row(1024, tokens=100, fvu=0.1)], paths[1]
  )
  assert _run(*paths) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[2:] == [
      '| width 512 | 40.0 | 0.1000 | 0.0900 | 25.0% | +0.0% | +0.0% | settled'
      ' |',
      '| width 1024 | 40.0 | 0.0900 |  |  | +0.0% | -10.0% | open |',
  ]


def test_missing_tables_are_one_line(tmp_path, capsys):
  assert _run('one.csv') == 2
  assert 'name two: FULL.csv HALF.csv' in capsys.readouterr().err
  missing = str(tmp_path / 'no.csv')
  assert _run(missing, missing) != 0
  (line,) = capsys.readouterr().err.splitlines()
  assert f'{missing}: missing' in line


def test_a_member_is_named_by_its_coefficient_or_its_target():
  rows = [
      _row(sparsity_coefficient=1e-3, target_l0=0.0),
      _row(sparsity_coefficient=0.0, target_l0=40.0),
  ]
  moves = settled.compare(
      rows, [row | {'training_tokens': 100} for row in rows]
  )
  names = [line[0] for line in settled.lines(moves)]
  assert names == ['coefficient 0.001', 'k or target 40']
