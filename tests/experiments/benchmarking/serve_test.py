"""The benchmark of the server: its texts, and its percentiles."""

import numpy as np

from experiments.benchmarking import serve
from jumprelu import data
from jumprelu.lm import source


def test_texts_differ_and_have_the_number_of_tokens():
  tokenizer = data.Tokenizer(source.find('gemma2_nano').tokenizer_path)
  texts = serve.texts(tokenizer, 20, tokens=64)
  assert len(set(texts)) == 20
  assert {len(tokenizer.encode(text)) + 1 for text in texts} == {64}


def test_the_first_requests_are_not_measured(monkeypatch):
  seconds = [9.0, 9.0, *np.arange(1, 101) / 1e3]
  # A request starts half a second after the end of the one before it.
  clock = iter(np.cumsum([x for s in seconds for x in (0.5, s)]))
  monkeypatch.setattr(serve.time, 'perf_counter', lambda: next(clock))
  posted = []

  class Server:

    def post(self, name, body):
      posted.append((name, body))

  bodies = [{'text': str(i)} for i in range(102)]
  times = serve.measure(Server(), 'run', bodies, warm_up=2)
  assert posted == [('run', body) for body in bodies]
  assert times.name == 'run'
  np.testing.assert_allclose(times[1:], [50.5, 95.05, 100.0])
