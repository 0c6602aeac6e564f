"""Tests of reprs, HTML and treescope: short, escaped, without parameters."""

import html.parser
import subprocess
import sys

import numpy as np
import pytest
import treescope

import jumprelu
from jumprelu.api import displays, latents

# treescope reads deprecated names of NumPy when it is first used.
pytestmark = pytest.mark.filterwarnings('ignore:numpy.core:DeprecationWarning')

TEXT = 'x = "</code><script>alert(1)</script>&amp;"\n'


@pytest.fixture(scope='module')
def objects(suite, model):
  """Returns one object of each class with a display, made of hostile text."""
  sae = suite['resid_post', 20]
  acts = model.run(TEXT, sae)
  example = latents.Example(
      2.0, ['<script>', '&', '\n'], np.array([2.0, 0, 1]), 0
  )
  latent = latents.Latent(
      index=3,
      sae=sae,
      tokens=100,
      count=6,
      mean=1.5,
      largest=2.0,
      threshold=0.5,
      histogram=np.array([0, 1, 2, 3]),
      examples=latents.Examples([example] * 2),
      top_tokens=[('<script>', 2.0, 2)],
      promoted=[('<script>', 0.5)],
      suppressed=[('&', -0.5)],
      neighbours=[(4, 0.3)],
  )
  return {
      'SAE': sae,
      'Suite': jumprelu.Suite(dict(suite), name='<script>'),
      'LanguageModel': model,
      'spliced': model.with_sae(sae, keep_error=True),
      'Activations': acts,
      'Top': acts.top(3),
      'Attribution': model.attribute(acts, target='script', position=4),
      'Generation': model.generate(TEXT, tokens=3),
      'Latent': latent,
      'Examples': latent.examples,
  }


NAMES = (
    *('SAE', 'Suite', 'LanguageModel', 'spliced', 'Activations', 'Top'),
    *('Attribution', 'Generation', 'Latent', 'Examples'),
)


class _Parser(html.parser.HTMLParser):
  """Collects text, and checks that tags are closed in order."""

  def __init__(self):
    super().__init__()
    self.open, self.text, self.tags = [], '', set()

  def handle_starttag(self, tag, attrs):
    self.open.append(tag)
    self.tags.add(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


@pytest.mark.parametrize('name', NAMES)
def test_html_is_well_formed_short_and_escaped(objects, name):
  shown = objects[name]._repr_html_()
  parser = _Parser()
  parser.feed(shown)
  assert not parser.open and parser.text.strip()
  assert 'script' not in parser.tags and len(shown) < 20_000
  if name in ('Suite', 'Latent', 'Examples'):
    assert '<script>' in parser.text
  if name == 'Generation':
    assert TEXT.strip() in parser.text


@pytest.mark.parametrize('name', NAMES)
def test_reprs_are_short_and_show_no_array(objects, name):
  shown = repr(objects[name])
  assert len(shown) < 2_500 and 'array' not in shown and 'W_enc' not in shown
  if name in ('SAE', 'LanguageModel', 'spliced', 'Activations', 'Generation'):
    assert '\n' not in shown


@pytest.mark.parametrize('name', NAMES)
def test_treescope_shows_attributes_and_no_parameters(objects, name):
  shown = treescope.render_to_text(objects[name])
  kind = type(objects[name]).__name__
  assert shown.startswith(f'{kind}(') and len(shown) < 8_000
  assert 'W_enc' not in shown and 'input_embedding' not in shown
  assert 'object at 0x' not in shown
  assert '<script>alert' not in treescope.render_to_html(objects[name])


def test_treescope_shows_arrays_as_shapes(objects):
  shown = treescope.render_to_text(objects['Activations'])
  tokens = len(objects['Activations'].tokens)
  assert f'latents=float32[{tokens}, 64],' in shown
  assert f'logits=float32[{tokens}, 4096],' in shown
  assert "'resid_post/layer_2/width_64/average_l0_5': SAE(" in (
      treescope.render_to_text(objects['Suite'])
  )


def test_displays_import_no_treescope(release):
  code = f"""
import sys, jumprelu
suite = jumprelu.load({str(release)!r})
repr(suite), suite._repr_html_(), suite['resid_post', 20]._repr_html_()
print('treescope' in sys.modules)
"""
  done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout == 'False\n'


def test_heat_shows_values_by_sign_and_size():
  shown = displays.heat(['a', 'b', 'c'], [2.0, -1.0, 0.0], 2.0)
  assert 'rgba(213,94,0,0.80)" title="+2.00">a<' in shown
  assert 'rgba(0,114,178,0.40)" title="-1.00">b<' in shown
  assert shown.endswith('</span>c</code>')


def test_a_histogram_draws_the_threshold_where_it_is(objects):
  latent = objects['Latent']
  bars = displays.histogram_svg(latent.histogram, 2.0, 0.5)
  assert bars.count('<rect') == 4 and '<line x1="80.0" x2="80.0"' in bars
  assert '<line' not in displays.histogram_svg(latent.histogram, 2.0, None)
  assert displays.histogram(latent.histogram) == ' ▅▇█'
  assert 'values 0 | ▅▇█| 2.00, log scale' in repr(latent)


def test_lists_of_examples_have_a_line_each(objects):
  lines = repr(objects['Examples']).split('\n')
  assert len(lines) == 2 and lines[0].strip().startswith("2.00  '>><script><<&")
  assert repr(latents.Examples()) == 'no examples'
