"""The pictures of the real run, drawn from tables that the test makes."""

import csv
import itertools

from absl import flags
import pytest

from experiments.real import pictures
from jumprelu import errors

_COLUMNS = (
    'part', 'training_tokens', 'training_text', 'text', 'unique_tokens', 'epochs', 'model', 'layer', 'site',
    'width', 'variant', 'sparsity_coefficient', 'target_l0', 'seed',
    'tokens_evaluated', 'l0', 'fvu', 'delta_loss', 'delta_loss_stderr',
)  # fmt: skip


def _write(folder, part, rows):
  base = {
      'part': part,
      'training_tokens': 400,
      'unique_tokens': 300,
      'epochs': 1.3,
  }
  base |= {'model': 'gemma-3-270m', 'layer': 9, 'seed': 0, 'target_l0': 0}
  base |= {'training_text': 'a.jsonl', 'text': 'a.jsonl'}
  base |= {'tokens_evaluated': 100, 'delta_loss_stderr': 0.01}
  with (folder / f'{part}.csv').open('w', encoding='utf-8') as file:
    writer = csv.DictWriter(file, _COLUMNS)
    writer.writeheader()
    for i, row in enumerate(rows, start=2):
      metrics = {'l0': 10 * i, 'fvu': 0.5 / i, 'delta_loss': 0.3 / i}
      writer.writerow(base | metrics | row)


def _member(variant, width, coefficient, **more):
  member = {'variant': variant, 'width': width, 'site': 'resid_post'}
  return member | {'sparsity_coefficient': coefficient} | more


def _labels(fig):
  return {text.get_text() for text in fig.legends[0].get_texts()}


def test_each_picture_has_the_curves_of_its_parts(tmp_path):
  _write(
      tmp_path,
      'ladder',
      [
          _member('jumprelu', width, value)
          for width, value in itertools.product((64, 128), (1e-3, 2e-3))
      ],
  )
  _write(
      tmp_path,
      'topk',
      [_member('topk', 128, 1, target_l0=20), _member('relu', 64, 0.1)],
  )
  _write(tmp_path, 'half_topk', [_member('topk', 256, 1, training_tokens=200)])
  _write(
      tmp_path,
      'mlp_out',
      [_member('jumprelu', 64, 1e-3, training_tokens=50, site='mlp_out')],
  )
  rows = pictures.read(tmp_path)
  figures = {
      name: draw(select(rows))
      for name, (select, draw) in pictures.PICTURES.items()
  }
  variants = figures['variants']
  assert _labels(variants) == {'TopK', 'JumpReLU', 'ReLU + L1'}
  titles = [axis.get_title() for axis in variants.axes]
  assert titles[:2] == ['64 latents', '128 latents']
  caption = variants.get_suptitle().replace('\n', ' ').replace('\xa0', ' ')
  assert 'gemma-3-270m, layer 9 · residual stream' in caption
  assert 'trained on 400 tokens of a.jsonl' in caption
  assert {'Width 64', 'Width 128'} <= _labels(figures['widths'])
  assert figures['sites'].axes[0].get_title() == 'MLP output'


def test_pictures_without_a_finished_part_are_skipped(tmp_path, capsys):
  _write(tmp_path, 'topk', [_member('topk', 128, 1, target_l0=20)])
  values = flags.FlagValues()
  pictures.define_flags(values)
  values(['pictures', f'--results={tmp_path}'])
  assert pictures.run(values) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines == [f'{n}: no part is finished' for n in pictures.PICTURES]
  assert not list(tmp_path.glob('*.png'))


def test_a_folder_without_tables_is_refused(tmp_path):
  with pytest.raises(errors.MissingInputError, match='no CSV file; run python'):
    pictures.read(tmp_path)
