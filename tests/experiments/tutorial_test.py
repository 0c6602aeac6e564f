"""The stored outputs of the tutorial; `run/demo_test.py` executes it."""

import nbformat

from experiments import tutorial


def test_every_cell_of_code_was_executed_in_order():
  notebook = nbformat.read(tutorial.PATH, as_version=4)
  cells = [c for c in notebook.cells if c.cell_type == 'code']
  assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
  assert all(c.outputs for c in cells)
  assert not any(o.output_type == 'error' for c in cells for o in c.outputs)


def test_the_outputs_name_no_path_of_a_machine():
  text = tutorial.PATH.read_text('utf-8')
  assert '/home/' not in text and '/tmp/' not in text and '/root/' not in text
