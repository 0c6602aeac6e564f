"""Rows in registers: tiles whose sizes Triton accepts."""

import pytest

from jumprelu.ops.pallas import calls


@pytest.mark.parametrize('size', [1, 80, 96, 1000, 2304, 3584, 4608])
def test_tiles_are_powers_of_two_that_cover_a_row_once(size):
  tiles = calls.tiles(size)
  assert all(tile.size & (tile.size - 1) == 0 for tile in tiles)
  places = [p for t in tiles for p in range(t.start, t.start + t.size)]
  assert places == list(range(size))


def test_tiles_are_few_and_start_at_multiples_of_their_size():
  assert [tile.size for tile in calls.tiles(2304)] == [1024, 1024, 256]
  assert all(tile.start % tile.size == 0 for tile in calls.tiles(2304))
