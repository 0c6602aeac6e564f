"""The time of a collection of features, against the first pass of `evaluate`.

Both read the same tokens with the same members. In each round both run once, in
alternating order, and their times are compared within the round. Compilation is
not timed. The second phase of the collection, which does not run the model, is
timed apart.

  python -m experiments.benchmarking.features --release=jumprelu_demo/release
"""

from collections.abc import Callable, Mapping
import pathlib
import shutil
import sys
import tempfile
import time
from typing import Any, NamedTuple

from absl import flags
import numpy as np

from experiments import findings
from jumprelu import data, evals, features, lm
from jumprelu.evals import corpus_passes, evaluate, jitted
from jumprelu.evals import text as text_lib
from jumprelu.features import collect, segments, tables, text_pass
from jumprelu.release import evaluation, formats
from jumprelu.run import main as main_lib

EVALUATE, PASS, SECOND = 'evaluate', 'pass over text', 'second phase'


class Job(NamedTuple):
  """What both passes read."""

  forward: corpus_passes.Forward
  placed: list[corpus_passes.Placed]
  shift: Mapping[lm.Tap, np.ndarray]
  text: text_lib.Text
  members: list[evaluate.EvalMember]
  unembedding: Any


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the flags."""
  flags.DEFINE_string(
      'release',
      'jumprelu_demo/release',
      'Release, whose training config names the text.',
      flag_values=flag_values,
  )
  flags.DEFINE_integer(
      'tokens', 102_400, 'Held-out positions.', 1, flag_values=flag_values
  )
  flags.DEFINE_integer('rounds', 5, 'Rounds.', 1, flag_values=flag_values)


def run(flag_values: flags.FlagValues) -> int:
  """Prints the table as Markdown."""
  job = prepare(pathlib.Path(flag_values.release), flag_values.tokens)
  print(table(measure(job, flag_values.rounds)))
  return 0


def prepare(release: pathlib.Path, tokens: int) -> Job:
  """Returns the job on the members of a release."""
  released = formats.complete(formats.find(release), formats.Origin())
  training = next(iter(released.values())).training
  model = lm.load(formats.model_of(released))
  corpus = evaluation.corpus_config(training)
  vocabulary = data.Tokenizer(model.tokenizer_path, rows=model.config.vocab)
  cache = data.prepare(training['data'], vocabulary, corpus).held_out
  members = [evaluation.make_member(*item) for item in released.items()]
  placed = [
      corpus_passes.place(
          member.sae, evaluate.params_with_gain(model, member), member.reads
      )
      for member in members
  ]
  taps = lm.all_taps(member.reads for member in members)
  forward = jitted.forward(model, taps)
  text = text_lib.sample(cache, tokens, sequences=evals.Config().lm_sequences)
  targets = sorted({member.target for member in placed})
  shift = corpus_passes.first_means(forward, targets, text=text)
  unembedding = collect.unembedding(
      model, members, vocab=vocabulary.vocab_size, mesh=None
  )
  return Job(forward, placed, shift, text, members, unembedding)


def measure(job: Job, rounds: int) -> dict[str, list[float]]:
  """Returns the seconds of each pass, by round."""

  def evaluate_first():
    corpus_passes.first(
        job.forward,
        job.placed,
        dict(job.shift),
        text=job.text,
        config=evals.Config(),
    )

  with tempfile.TemporaryDirectory() as folder:
    of_text = pathlib.Path(folder, 'segments')

    def collect_pass():
      text_pass.run(job.forward, job.placed, text=job.text, folder=of_text)

    def second_phase():
      tables.write(
          collect.described(job.members),
          pathlib.Path(folder, 'tables'),
          parts=segments.read_all(of_text),
          unembedding=job.unembedding,
          config=features.Config(),
      )

    calls = {EVALUATE: evaluate_first, PASS: collect_pass}
    for call in calls.values():
      call()  # Compiles the programs.
    second_phase()
    shutil.rmtree(pathlib.Path(folder, 'tables'))
    seconds: dict[str, list[float]] = {name: [] for name in (*calls, SECOND)}
    for number in range(rounds):
      order = list(calls) if number % 2 else list(reversed(calls))
      shutil.rmtree(of_text)
      for name in order:
        seconds[name].append(_seconds(calls[name]))
      print(f'round {number + 1} of {rounds}', file=sys.stderr)
    seconds[SECOND].append(_seconds(second_phase))
  return seconds


def _seconds(call: Callable[[], None]) -> float:
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


def table(seconds: Mapping[str, list[float]]) -> str:
  """Returns the medians, and the ratio's median and quartiles."""
  ratios = np.divide(seconds[PASS], seconds[EVALUATE])
  low, middle, high = np.percentile(ratios, [25, 50, 75])
  lines = [[name, f'{np.median(times):.2f}'] for name, times in seconds.items()]
  lines[1].append(f'{middle:.2f} ({low:.2f} to {high:.2f})')
  return findings.markdown(
      ['', 'seconds', f'times `{EVALUATE}` (quartiles)'],
      [line + [''] * (3 - len(line)) for line in lines],
  )


if __name__ == '__main__':
  sys.exit(
      main_lib.run_command(
          sys.modules['__main__'],
          'python -m experiments.benchmarking.features',
          sys.argv[1:],
      )
  )
