"""Sets of explanations: complete without a model, and resumable with any."""

import dataclasses
import json
import random
import re

import pytest

from jumprelu import errors, explain
from jumprelu.explain import judges, llm, make, prompts, rules, summary
from jumprelu.features import reading
from jumprelu.files import json_files, locks
from tests.explain import planted

_CONFIG = explain.Config(trials=4, simulated=4)


def _plan(folder, *, explainer='rules', judge='rules', config=_CONFIG):
  return make.Plan(folder, 'test', (planted.MEMBER,), explainer, judge, config)


def _rows(folder):
  return reading.read_explanations(folder, 'test', planted.MEMBER).to_pylist()


class Lm:
  """Explains by a phrase, and answers by a function of the request."""

  name = 'test-model'

  def __init__(self, answer=lambda request: '', stop_after=None):
    self.prompts, self._answer = [], answer
    self._stop_after = stop_after

  def answer(self, requests):
    for request in requests:
      if len(self.prompts) == self._stop_after:
        raise errors.UserError('stopped')
      self.prompts.append(request.prompt)
      explains = request.form.kind == 'text'
      text = 'some phrase' if explains else self._answer(request)
      yield llm.Answer(request.id, text)


def _random_answer(seed=0):
  rng = random.Random(seed)
  return lambda r: json.dumps(
      [rng.randint(r.form.low, r.form.high) for _ in range(r.form.count)]
  )


def test_rules_need_no_language_model(folder):
  result = make.make(_plan(folder))
  rows = {row['latent']: row for row in _rows(folder)}
  assert len(rows) == planted.WIDTH and result.pending == 0
  assert rows[planted.DIGITS]['explanation'] == 'fires on digits'
  for kind in ('detection', 'fuzzing', 'intruder'):
    assert rows[planted.DIGITS][kind]['score'] == 1
  assert rows[planted.TOKEN_IF]['simulation']['score'] > 0.9
  assert rows[planted.NEVER]['explanation'] is None
  assert rows[planted.NEVER]['detection']['score'] is None
  rule = rules.from_json(rows[planted.DIGITS]['rule'])
  assert [clause.name for clause in rule] == ['digits']
  token = rows[planted.TOKEN_IF]['single_token']
  assert token == {
      'token': planted.TOKEN[' if'], 'detection': 1, 'fuzzing': 1,
  }  # fmt: skip


def test_the_summary_counts_latents_that_a_token_explains(folder):
  whole = make.make(_plan(folder)).manifest['summaries']['all']
  # Only " if"; the other rules need several tokens.
  assert whole['single_token'] == {'latents': 7, 'share': pytest.approx(1 / 7)}
  assert whole['explained'] == {'latents': 7, 'share': pytest.approx(6 / 7)}
  assert whole['latents'] == 8 and whole['unexplained'] == 1
  rows = [row['detection']['score'] for row in _rows(folder)]
  known = [score for score in rows if score is not None]
  part = whole['scores']['detection']
  assert part['mean'] == pytest.approx(sum(known) / 7)
  text = '\n'.join(summary.lines('x', whole))
  assert '14.3% of 7 latents are explained by a single token' in text


def test_a_judge_at_random_scores_as_chance(folder):
  config = explain.Config(kinds=('detection', 'fuzzing', 'intruder'))
  make.make(_plan(folder, judge='llm', config=config), Lm(_random_answer()))
  scores = {kind: [] for kind in config.kinds}
  for row in _rows(folder):
    for kind, values in scores.items():
      if row[kind]['score'] is not None:
        values.append(row[kind]['score'])
        assert row[kind]['unparsable'] == 0
  # About 250 answers of each kind; 70 for intruders.
  for kind, chance, error in (
      ('detection', 0.5, 0.04),
      ('fuzzing', 0.5, 0.05),
      ('intruder', 0.2, 0.05),
  ):
    mean = sum(scores[kind]) / len(scores[kind])
    assert abs(mean - chance) < 3 * error, kind


def test_unparsable_answers_are_counted(folder):
  def answer(request):
    return 'no' if request.kind != 'intruder' else '[1]'

  make.make(_plan(folder, explainer='llm', judge='llm'), Lm(answer))
  row = _rows(folder)[planted.DIGITS]
  assert row['explanation'] == 'some phrase'
  assert row['detection']['score'] is None and row['detection']['count'] == 0
  assert row['detection']['unparsable'] > 20
  assert row['simulation']['unparsable'] == 4
  assert row['intruder']['unparsable'] == 0 and row['intruder']['count'] == 4
  manifest = reading.read_explanation_sets(folder)['test']
  scores = manifest['summaries']['all']['scores']
  assert scores['detection']['unparsable'] == sum(
      row['detection']['unparsable'] for row in _rows(folder)
  )


def test_a_stopped_set_resumes_without_asking_again(folder):
  plan = _plan(folder, explainer='llm', judge='llm')
  first, second = (Lm(_random_answer(), stop) for stop in (30, None))
  with pytest.raises(errors.UserError, match='stopped'):
    make.make(plan, first)
  assert 'test' not in reading.read_explanation_sets(folder)
  make.make(plan, second)
  third = Lm()
  again = make.make(plan, third)
  sent = [*first.prompts, *second.prompts]
  assert len(sent) == len(set(sent)) > 60 and third.prompts == []
  assert again.manifest['complete']


def test_prompts_are_answered_through_files(folder, tmp_path):
  plan = _plan(folder, explainer='llm', judge='llm')
  answers, phases = tmp_path / 'mine.jsonl', []
  for _ in range(3):
    path = str(answers) if answers.exists() else None
    result = make.make(plan, llm.Replay(path, name='me'))
    if not result.pending:
      break
    lines = (result.folder / 'prompts.jsonl').read_text().splitlines()
    requests = [json.loads(line) for line in lines]
    assert len(requests) == result.pending
    phases.append({request['kind'] for request in requests})
    with answers.open('a') as file:
      for request in requests:
        form = request['form']
        text = json.dumps([form['low']] * form['count'])
        text = 'a phrase' if form['kind'] == 'text' else text
        file.write(json.dumps({'id': request['id'], 'text': text}) + '\n')
  assert phases == [{'explanation'}, set(explain.KINDS)]
  assert result.manifest['model'] == 'me'
  assert not (result.folder / 'prompts.jsonl').exists()
  assert _rows(folder)[planted.DIGITS]['detection']['score'] == 0.5


def test_judges_of_rules_and_of_models_get_the_same_questions(folder):
  """A model that applies the rule to the prompt has the rule's scores."""

  def answer(request):
    if request.kind != 'detection':
      return ''
    texts = re.findall(r'Text \d+: <text>"(.*?)"</text>', request.prompt)
    return json.dumps([int(' if' in text) for text in texts])

  make.make(_plan(folder, judge='llm'), Lm(answer))
  judged = _rows(folder)[planted.TOKEN_IF]['detection']
  assert judged['score'] == 1 and judged['unparsable'] == 0


def test_sets_with_other_settings_are_refused(folder):
  make.make(_plan(folder))
  other = dataclasses.replace(_CONFIG, seed=1)
  with pytest.raises(errors.UserError, match='another settings; choose'):
    make.make(_plan(folder, config=other))
  with pytest.raises(errors.UserError, match='--name'):
    make.make(_plan(folder)._replace(name='../x'))


def test_two_processes_do_not_write_one_set(folder):
  make.make(_plan(folder))
  lock = folder / 'explanations' / 'test' / 'explain.lock'
  with locks.hold(lock, where='test', on_busy=lambda: None):
    with pytest.raises(errors.UserError, match='another process'):
      make.make(_plan(folder))


def test_a_sample_of_latents_is_the_same_in_every_run(folder):
  config = dataclasses.replace(_CONFIG, latents=3)
  make.make(_plan(folder, config=config))
  sampled = [row['latent'] for row in _rows(folder)]
  assert len(sampled) == 3 and sampled == sorted(sampled)
  make.make(_plan(folder, config=config)._replace(name='again'))
  again = reading.read_explanations(folder, 'again', planted.MEMBER)
  assert again['latent'].to_pylist() == sampled
  assert again.drop(['simulation']).to_pylist() == [
      {k: v for k, v in row.items() if k != 'simulation'}
      for row in _rows(folder)
  ]


def test_features_without_explanations_and_of_newer_formats(folder):
  assert reading.read_explanation_sets(folder) == {}
  make.make(_plan(folder))
  path = folder / 'explanations' / 'test' / 'manifest.json'
  manifest = json_files.read_json(path) | {'format': 99}
  json_files.write_json(path, manifest)
  with pytest.raises(
      errors.DataError, match='set of explanations of format 99'
  ):
    reading.read_explanation_sets(folder)


def test_scores_without_questions_are_null():
  scores = judges.score([], [], seed=0)
  assert set(scores) == set(explain.KINDS)
  assert all(s.score is None and s.count == 0 for s in scores.values())
  assert prompts.LONGEST <= 512
