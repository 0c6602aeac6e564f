"""Captions: the sources of error bars, and columns that tables share."""

from experiments.figures import captions, gated_shrinkage, scope_transfer
from experiments.suites import records, scales
from jumprelu.plots import sheets

_ROW = {
    'model': 'm', 'layer': 3, 'site': 'mlp_out', 'variant': 'topk',
    'width': 1024, 'training_tokens': 5_000_000, 'training_text': 'prose',
    'text': 'prose', 'tokens_evaluated': 2000, 'seed': 0, 'fvu': 0.1,
    'delta_loss': 0.2, 'delta_loss_stderr': 0.01,
}  # fmt: skip


def _caption(rows, *metrics, **more):
  fig, _ = sheets.panels(1, 1)
  captions.write(fig, rows, metrics, **more)
  return ' '.join(fig.get_suptitle().split())


def test_a_caption_is_made_of_the_columns_of_the_rows():
  rows = [_ROW, _ROW | {'seed': 1, 'layer': 1}]
  assert _caption(rows, 'fvu', note='a remark') == (
      'm, layers 1, 3 · MLP output · TopK of 1,024 latents · trained on'
      ' 5,000,000 tokens of prose · measured on held-out text of prose, 2,000'
      ' tokens · 2 seeds · bars: ± 2 standard errors over seeds · a remark'
  )


def test_a_caption_names_epochs_and_different_tokens_if_they_are_known():
  rows = [_ROW | {'epochs': 1.453, 'unique_tokens': 3_441_000}]
  assert (
      'tokens of prose, 1.5 epochs of 3,441,000 tokens · measured'
      in _caption(rows, 'fvu')
  )


def test_a_caption_names_the_sources_of_the_bars_of_each_metric():
  one, two = [_ROW], [_ROW, _ROW | {'seed': 1}]
  assert _caption(one, 'fvu').endswith('1 seed · bars: none')
  assert _caption(one, 'fvu', 'delta_loss').endswith(
      'standard errors over sequences of the text (delta loss); no bars: FVU'
  )
  assert _caption(two, 'fvu', 'delta_loss').endswith(
      'over seeds (FVU); over seeds and sequences of the text (delta loss)'
  )


def test_rows_of_published_saes_are_not_in_the_caption():
  released = _ROW | {'variant': 'released', 'width': 99}
  assert '99' not in _caption([_ROW, released], 'fvu')


def test_a_record_has_the_configs_of_all_suites():
  record = records.of_figure(scope_transfer, scales.NANO)
  assert record['model'] == 'gemma2_nano_it + gemma2_nano'
  assert record['text'] == 'chats'
  assert record['training_tokens'] == 262_144
  assert records.of_figure(gated_shrinkage, scales.NANO)['width'] == 1


def test_a_record_adds_only_columns_that_a_table_lacks():
  rows = [{'model': 'a', 'l0': 1}, {'l0': 2}]
  assert records.add(rows, {'model': 'b', 'layer': 2}) == [
      {'model': 'a', 'l0': 1, 'layer': 2}, {'l0': 2, 'layer': 2}
  ]  # fmt: skip
