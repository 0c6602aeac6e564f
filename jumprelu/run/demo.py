"""Trains, evaluates and releases a small suite, in minutes on a laptop.

Runs the bundled language model on the source of Python's standard library. From
one stream of activations, it trains JumpReLU SAEs at all three sites of a layer
and a transcoder, each at several sparsity coefficients. It then evaluates all
SAEs on held-out text, writes a release in Gemma Scope's format, and plots the
sparsity-fidelity frontier. Finally it writes explore.html, a page that shows
every latent in a browser. Needs no accelerator, account or download.

  jumprelu demo
  jumprelu demo --out=/tmp/first_suite

An interrupted demo resumes if it is started again with the same flags.
"""

import os
import pathlib
import sys
import time

from absl import flags

from jumprelu.run import flags as flags_lib
from jumprelu.run import main

EXTRA = 'train'

# The demo's suite; all other fields come from the recipe.
SUITE = {
    'recipe': 'short',
    'model': 'gemma2_nano',
    'layer': 2,
    # Four times the model's width; wider SAEs would not converge in minutes.
    'widths': (512,),
    'tokens': 524_288,
}


def define_flags(flag_values: flags.FlagValues) -> None:
  """Declares the demo's flags."""
  flags.DEFINE_string(
      'out',
      'jumprelu_demo',
      'Folder for the run, the release, the results and the page.',
      flag_values=flag_values,
  )
  flags_lib.define_integer(
      flag_values,
      'tokens',
      SUITE['tokens'],
      'Tokens to train on. More tokens take longer and improve the SAEs'
      ' slightly.',
      lower_bound=1,
  )


def run(flag_values: flags.FlagValues) -> int | None:
  """Runs the demo; returns the exit code, or None if all parts finished."""
  start = time.monotonic()
  from jumprelu.training import config as config_lib

  out = pathlib.Path(flag_values.out)
  config = config_lib.resolve(SUITE | {'tokens': flag_values.tokens})

  from jumprelu.run import train

  code = train.train_suite(config, out / 'run')
  if code:
    return code

  from jumprelu.release import publish

  trained = publish.open_run(out / 'run')
  evaluation = publish.evaluate_run(trained)
  rows = publish.release_run(trained, evaluation, out / 'release')
  _write_page(out, config)
  return _show(out, rows, time.monotonic() - start)


def _write_page(out, config):
  """Writes features/ and explore.html; existing features are kept."""
  from jumprelu.explore import release_page, write
  from jumprelu.features import collect
  from jumprelu.release import formats

  folder = out / 'features'
  released = formats.find(out / 'release')
  if folder.exists():
    release_page.check_features(folder, released)
  else:
    collect.collect(
        released,
        folder,
        source=collect.source_of(
            released, text=config.data, corpus=config.corpus
        ),
    )
  _explain(folder)
  page = release_page.data(out / 'release', folder, run=out / 'run')
  write.write_file(page, out / 'explore.html')


def _explain(folder):
  """Adds rules to the features; an existing set is kept."""
  from jumprelu import explain
  from jumprelu.explain import make
  from jumprelu.features import reading

  members = (m['path'] for m in reading.read_manifest(folder)['members'])
  plan = make.Plan(
      folder,
      make.RULES,
      tuple(members),
      make.RULES,
      make.RULES,
      explain.Config(),
  )
  make.make(plan)


def _show(out, rows, seconds):
  """Writes the results and the plot, and prints the table and the paths."""
  from jumprelu.evals import evaluate
  from jumprelu.release import frontier

  evaluate.write_results(rows, out / 'results.jsonl')
  frontier.plot_frontier(rows, out / 'frontier.png')
  evaluate.print_table(rows)
  print(f"""
{len(rows)} SAEs in {seconds:.0f} s. Results:
  {os.path.join(out, 'explore.html')}    every latent; open it in a browser
  {os.path.join(out, 'features')}        the data of that page, as Parquet files
  {os.path.join(out, 'frontier.png')}    fidelity against sparsity, by site
  {os.path.join(out, 'results.jsonl')}   one line per member, all metrics
  {os.path.join(out, 'release')}         card, arrays in Gemma Scope's format
  {os.path.join(out, 'run')}             config, training metrics, checkpoints
Check the release with: jumprelu verify {os.path.join(out, 'release')}""")


if __name__ == '__main__':
  sys.exit(main.launch('demo'))
