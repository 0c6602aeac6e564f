"""Makes a set of explanations: explains, asks, scores and writes."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any, NamedTuple, NoReturn

import numpy as np

from jumprelu import errors, explain
from jumprelu.explain import (
    judges,
    llm,
    prompts,
    rules,
    scoring,
    storage,
)
from jumprelu.explain import questions as questions_lib
from jumprelu.explain import windows as windows_lib
from jumprelu.features import reading
from jumprelu.files import locks, progress_line

# The explainer and the judge without a language model.
RULES = 'rules'
LLM = 'llm'
_LOCK = 'explain.lock'


class Plan(NamedTuple):
  """The contents of a set of explanations.

  Attributes:
    features: The folder of features.
    name: The name of the set.
    members: The paths of its members.
    explainer: 'rules' or 'llm'.
    judge: 'rules', which only judges rules, or 'llm'.
    config: The config.
  """

  features: pathlib.Path
  name: str
  members: tuple[str, ...]
  explainer: str
  judge: str
  config: explain.Config


class Result(NamedTuple):
  """The state of a set.

  Attributes:
    folder: The folder of the set.
    manifest: The manifest; {} while answers are missing.
    pending: The number of prompts without an answer.
  """

  folder: pathlib.Path
  manifest: dict[str, Any]
  pending: int


@dataclasses.dataclass(frozen=True)
class _Case:
  """A latent, with its windows and its rules."""

  member: str
  latent: int
  split: windows_lib.Split
  promoted: tuple[int, ...]
  rule: rules.Rule
  token: rules.Rule
  questions: list[questions_lib.Question]


def make(plan: Plan, model: llm.LanguageModel | None = None) -> Result:
  """Writes a set of explanations as far as answers are known.

  Args:
    plan: The plan.
    model: The language model; None if explainer and judge are rules.

  Raises:
    UserError: The set exists with other settings, or another process writes it.
  """
  folder = storage.open_set(plan.features, plan.name, _identity(plan, model))

  def refuse() -> NoReturn:
    raise errors.UserError(
        f'{folder}: another process writes these explanations; wait for it, or'
        ' choose another --name'
    )

  with locks.hold(folder / _LOCK, where=str(folder), on_busy=refuse):
    return _make(plan, model, folder)


def _make(
    plan: Plan, model: llm.LanguageModel | None, folder: pathlib.Path
) -> Result:
  """Writes a set of explanations in a folder that is locked."""
  manifest = reading.read_explanation_set(folder)
  if manifest['complete']:
    return Result(folder, manifest, 0)
  maker = _Maker(plan, model, folder)
  if pending := maker.pending():
    storage.write_prompts(folder, pending)
    return Result(folder, {}, len(pending))
  storage.write_prompts(folder, ())
  for member in plan.members:
    maker.write(member)
  summaries = storage.summaries(plan.features, plan.name, plan.members)
  manifest = storage.write_manifest(folder, _identity(plan, model), summaries)
  return Result(folder, manifest, 0)


def _identity(plan: Plan, model: llm.LanguageModel | None) -> dict[str, Any]:
  """Returns the fields that decide the contents of a set."""
  stored = reading.read_manifest(plan.features)['members']
  digests = {entry['path']: entry['sha256'] for entry in stored}
  return {
      'version': explain.VERSION,
      'explainer': plan.explainer,
      'judge': plan.judge,
      'model': model.name if model else None,
      'settings': dataclasses.asdict(plan.config),
      'members': [
          {'path': path, 'sha256': digests[path]} for path in plan.members
      ],
  }


class _Maker:
  """The cases of a plan, their explanations and their answers."""

  def __init__(
      self,
      plan: Plan,
      model: llm.LanguageModel | None,
      folder: pathlib.Path,
  ):
    self._plan = plan
    self._model = model
    self._folder = folder
    self._answers = llm.AnswersFile(folder / storage.ANSWERS)
    pieces = reading.read_vocabulary(plan.features)['piece'].to_pylist()
    self._vocabulary = rules.Vocabulary(pieces)

  def pending(self) -> list[prompts.Request]:
    """Returns the prompts without an answer, after the model was run."""
    if self._model is None:
      return []
    return [r for m in self._plan.members for r in self._pending_of(m)]

  def _pending_of(self, member: str) -> list[prompts.Request]:
    cases = list(self._cases(member))
    if self._plan.explainer == LLM:
      requests = [self._to_explain(case) for case in cases]
      if missing := self._ask(requests):
        return missing
    if self._plan.judge != LLM:
      return []
    return self._ask([r for case in cases for r in self._to_ask(case)])

  def write(self, member: str) -> None:
    """Writes the table of a member, unless it exists."""
    file = reading.member_files(member)['file']
    if (self._folder / file).exists():
      return
    rows = [self._row(case) for case in self._cases(member)]
    storage.write_member(self._folder, file, rows)

  def _cases(self, path: str) -> Iterator[_Case]:
    """Yields the latents of a member that are explained."""
    config = self._plan.config
    member = windows_lib.Member(self._plan.features, path)
    latents = np.arange(member.width)
    if config.latents:
      rng = np.random.default_rng(config.seed)
      latents = np.sort(rng.permutation(latents)[: config.latents])
    progress = progress_line.ProgressLine(f'explain: {path}', len(latents))
    for latent in progress.over(latents.tolist()):
      split = windows_lib.split(member.windows(latent), seed=config.seed)
      promoted = member.promoted(latent)
      view = rules.View.of(split.training)
      yield _Case(
          path,
          latent,
          split,
          tuple(promoted),
          rules.fit(view, self._vocabulary, promoted=promoted, config=config),
          rules.fit_token(view),
          questions_lib.make(split.held_out, latent=latent, config=config),
      )

  def _ask(self, requests: Sequence[prompts.Request]) -> list[prompts.Request]:
    """Returns the requests without an answer, after the model was run."""
    assert self._model is not None
    known = self._answers.ask(self._model, requests)
    return [request for request in requests if request.id not in known]

  def _known(self, request: prompts.Request) -> str:
    """Returns the text of an answer that is in the file."""
    assert self._model is not None
    return self._answers.ask(self._model, [request])[request.id].text

  def _to_explain(self, case: _Case) -> prompts.Request:
    return prompts.to_explain(
        case.split.training,
        case.promoted,
        member=case.member,
        latent=case.latent,
        pieces=self._vocabulary.pieces,
        config=self._plan.config,
    )

  def _explanation(self, case: _Case) -> str | None:
    if self._plan.explainer == RULES:
      return rules.describe(case.rule, self._vocabulary) or None
    return prompts.parse_explanation(self._known(self._to_explain(case)))

  def _to_ask(self, case: _Case) -> list[prompts.Request]:
    """Returns a request for each question; none without an explanation."""
    explanation = self._explanation(case)
    if explanation is None:
      return []
    return [
        prompts.to_ask(
            question,
            explanation,
            case.split.held_out,
            member=case.member,
            latent=case.latent,
            pieces=self._vocabulary.pieces,
        )
        for question in case.questions
    ]

  def _row(self, case: _Case) -> Mapping[str, Any]:
    explanation = self._explanation(case)
    view = rules.View.of(case.split.held_out)
    by_rules = self._plan.explainer == RULES
    if explanation is None:
      scores = judges.score([], [], seed=case.latent)
    elif self._plan.judge == RULES:
      scores = self._by_rule(case, case.rule, view, case.questions)
    else:
      answers = [
          prompts.parse_numbers(self._known(r), r.form)
          for r in self._to_ask(case)
      ]
      scores = judges.score(case.questions, answers, seed=case.latent)
    token = {'token': None, 'detection': None, 'fuzzing': None}
    if case.token:
      kinds = 'detection', 'fuzzing'
      asked = [q for q in case.questions if q.kind in kinds]
      judged = self._by_rule(case, case.token, view, asked)
      token = {
          'token': case.token[0].tokens[0],
          **{kind: judged[kind].score for kind in kinds},
      }
    return storage.row(
        case.member,
        case.latent,
        explanation=explanation,
        rule=rules.to_json(case.rule) if by_rules else '',
        scores=scores,
        single_token=token,
    )

  def _by_rule(
      self,
      case: _Case,
      rule: rules.Rule,
      view: rules.View,
      questions: Sequence[questions_lib.Question],
  ) -> Mapping[str, scoring.Score]:
    answers = judges.answer_by_rule(
        questions,
        rules.predict(rule, view, self._vocabulary),
        held_out=case.split.held_out,
        seed=case.latent,
    )
    return judges.score(questions, answers, seed=case.latent)
