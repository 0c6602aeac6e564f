"""Renders or launches training jobs: pods, TPU VMs or local.

A job trains one layer, or `--layers_per_job`.

The arguments after `--` are flags of `jumprelu train`; the trainer's own parser
checks them before anything is rendered. The launcher sets --out and --layer.
Each job has its run directory, such as OUT/RUN/layer_12, and may be restarted at
any time. README.md in this folder describes every step from an empty project
to a running pod.

  python -m launch.main --run=demo --layers=2 --out=runs --target=local
      --mode=apply -- --tokens=655360 --sites=resid_post
  python -m launch.main --run=scope-2b --layers=0-25 --out=gs://my-bucket/runs
      --accelerator=v5e --topology=4x4 --spot --image=NAME@sha256:...
      -- --model=gemma2_2b --recipe=paper --data=tokens:/mnt/tokens
"""

from collections.abc import Sequence
import contextlib
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import types

from absl import flags as absl_flags

from jumprelu import errors
from jumprelu.run import flags
from jumprelu.run import main as main_lib
from launch import jobset, options, queued_resource, spec, trainer

_PROG = 'python -m launch.main'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the launcher and returns the exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  launcher_args, trainer_flags = argv, []
  if '--' in argv:
    split = argv.index('--')
    launcher_args, trainer_flags = argv[:split], argv[split + 1 :]
  command = types.SimpleNamespace(
      __doc__=__doc__,
      define_flags=define_flags,
      run=lambda flag_values: run(flag_values, trainer_flags),
  )
  return main_lib.run_command(command, _PROG, launcher_args)


def define_flags(flag_values: absl_flags.FlagValues) -> None:
  """Declares a flag for each option."""
  flags.define(flag_values, options.Options())


def run(flag_values: absl_flags.FlagValues, trainer_flags: Sequence[str]):
  """Renders or launches; returns the exit code."""
  launch_options = flags.build(flag_values, options.Options())
  launched = check(launch_options, tuple(trainer_flags))
  if launch_options.mode == 'render':
    show(render(launched), launch_options.render_dir)
    return 0
  launchers = {
      'jobset': apply_jobsets,
      'queued_resource': create_queued_resources,
      'local': run_locally,
  }
  return launchers[launch_options.target](launched)


def check(
    launch_options: options.Options, trainer_flags: tuple[str, ...]
) -> spec.LaunchSpec:
  """Returns the spec, after the trainer's parser has accepted its flags."""
  problems = []
  commands = [['train', *trainer_flags]]
  try:
    launched = spec.LaunchSpec(launch_options, trainer_flags)
    # Two jobs suffice, because the commands differ only in the layers.
    ends = {min(launched.jobs), max(launched.jobs)}
    commands = [launched.command(job) for job in sorted(ends)]
  except errors.UserError as error:
    problems.append(str(error))
  for command in commands:
    try:
      trainer.parse(command)
    except (errors.UserError, absl_flags.Error) as error:
      problems.append(f'jumprelu train: {error}')
      break  # The other jobs would raise the same error.
  if problems:
    raise errors.UserError('; '.join(problems))
  return launched


def render(launched: spec.LaunchSpec) -> dict[str, str]:
  """Returns the manifests or scripts of a launch, by file name."""
  jobs = launched.jobs
  if launched.options.target == 'jobset':
    return {
        f'{launched.name(job)}.yaml': jobset.render(launched, job)
        for job in jobs
    }
  if launched.options.target == 'local':
    lines = [shlex.join(launched.command(job)) for job in jobs]
    return {f'{launched.options.run}.sh': '\n'.join(lines) + '\n'}
  scripts = {
      queued_resource.script_name(launched, job): queued_resource.render_script(
          launched, job
      )
      for job in jobs
  }
  create = queued_resource.render_create(launched)
  return scripts | {f'{launched.options.run}.create.sh': create}


def show(documents: dict[str, str], folder: str) -> None:
  """Writes one file per document, or all documents to stdout."""
  if not folder:
    for name, text in documents.items():
      print(f'--- # {name}\n{text}', end='')
    return
  path = pathlib.Path(folder)
  path.mkdir(parents=True, exist_ok=True)
  for name, text in documents.items():
    (path / name).write_text(text, 'utf-8')
  print(f'{folder}: {len(documents)} files')


def apply_jobsets(launched: spec.LaunchSpec) -> int:
  """Applies all manifests with one kubectl call; returns its exit code."""
  context = launched.options.context
  argv = ['kubectl', *([f'--context={context}'] if context else [])]
  text = '---\n'.join(render(launched).values())
  return _call([*argv, 'apply', '--filename=-'], text=text)


def create_queued_resources(launched: spec.LaunchSpec) -> int:
  """Requests each job's slice from gcloud; stops at the first failure."""
  with tempfile.TemporaryDirectory() as folder:
    for name, text in render(launched).items():
      pathlib.Path(folder, name).write_text(text, 'utf-8')
    for job in launched.jobs:
      code = _call(queued_resource.make_argv(launched, job), cwd=folder)
      if code:
        return code
  return 0


def run_locally(launched: spec.LaunchSpec) -> int:
  """Runs one job after another locally; stops at the first failure."""
  for job in launched.jobs:
    argv = [sys.executable, *launched.command(job)[1:]]
    env = {'JAX_PLATFORMS': 'cpu'} | launched.env
    code = _call(argv, env=os.environ | env)
    if code:
      return code
  return 0


def _call(argv: Sequence[str], *, text: str | None = None, **kwargs) -> int:
  """Runs a program, forwards SIGTERM to it and returns its exit code."""
  pipe = None if text is None else subprocess.PIPE
  try:
    child = subprocess.Popen(argv, stdin=pipe, encoding='utf-8', **kwargs)
  except FileNotFoundError:
    raise errors.MissingInputError(
        f'{argv[0]} is not on the PATH: install it, or use --mode=render and'
        ' copy the documents to a computer that has it'
    ) from None
  with _sigterm_forwarded_to(child):
    child.communicate(text)
  # A signal becomes 128 + its number, as in a shell.
  return child.returncode if child.returncode >= 0 else 128 - child.returncode


@contextlib.contextmanager
def _sigterm_forwarded_to(child):
  before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


if __name__ == '__main__':
  sys.exit(main())
