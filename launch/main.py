"""Renders, or launches, one training job a layer: pods, TPU VMs, or here.

What stands behind `--` are flags of `jumprelu train`; its own parser reads
them before anything is shown, so a bad one is answered here and now. --out and
--layer are the launcher's. Each layer has its run directory OUT/RUN/layer_NN,
and its job may be started again at any time. README.md of this folder leads
from nothing to a pod.

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
  own, trainer_flags = argv, []
  if '--' in argv:
    split = argv.index('--')
    own, trainer_flags = argv[:split], argv[split + 1 :]
  command = types.SimpleNamespace(
      __doc__=__doc__,
      define_flags=define_flags,
      run=lambda flag_values: run(flag_values, trainer_flags),
  )
  return main_lib.run_command(command, _PROG, own)


def define_flags(flag_values: absl_flags.FlagValues) -> None:
  """Declares a flag for each option."""
  flags.define(flag_values, options.Options())


def run(flag_values: absl_flags.FlagValues, trainer_flags: Sequence[str]):
  """Renders or launches; returns the exit code."""
  found = flags.build(flag_values, options.Options())
  launched = check(found, tuple(trainer_flags))
  if found.mode == 'render':
    show(render(launched), found.render_dir)
    return 0
  launchers = {
      'jobset': apply_jobsets,
      'queued_resource': create_queued_resources,
      'local': run_here,
  }
  return launchers[found.target](launched)


def check(
    found: options.Options, trainer_flags: tuple[str, ...]
) -> spec.LaunchSpec:
  """The spec, once the trainer too has nothing against it."""
  problems = []
  commands = [['train', *trainer_flags]]
  try:
    launched = spec.LaunchSpec(found, trainer_flags)
    # They differ in the layer only.
    ends = {min(launched.layers), max(launched.layers)}
    commands = [launched.command(layer) for layer in sorted(ends)]
  except errors.UserError as error:
    problems.append(str(error))
  for command in commands:
    try:
      trainer.parse(command)
    except (errors.UserError, absl_flags.Error) as error:
      problems.append(f'jumprelu train: {error}')
      break  # The other layers would say the same.
  if problems:
    raise errors.UserError('; '.join(problems))
  return launched


def render(launched: spec.LaunchSpec) -> dict[str, str]:
  """Every document of a launch, by file name."""
  layers = launched.layers
  if launched.options.target == 'jobset':
    return {
        f'{launched.name(layer)}.yaml': jobset.render(launched, layer)
        for layer in layers
    }
  if launched.options.target == 'local':
    lines = [shlex.join(launched.command(layer)) for layer in layers]
    return {f'{launched.options.run}.sh': '\n'.join(lines) + '\n'}
  scripts = {
      queued_resource.script_name(
          launched, layer
      ): queued_resource.render_script(launched, layer)
      for layer in layers
  }
  create = queued_resource.render_create(launched)
  return scripts | {f'{launched.options.run}.create.sh': create}


def show(documents: dict[str, str], folder: str) -> None:
  """Writes a file a document, or all of them to stdout."""
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
  """Hands all manifests to kubectl, in one stream."""
  context = launched.options.context
  argv = ['kubectl', *([f'--context={context}'] if context else [])]
  text = '---\n'.join(render(launched).values())
  return _call([*argv, 'apply', '--filename=-'], text=text)


def create_queued_resources(launched: spec.LaunchSpec) -> int:
  """Asks gcloud for one slice after another; stops at the first refusal."""
  with tempfile.TemporaryDirectory() as folder:
    for name, text in render(launched).items():
      pathlib.Path(folder, name).write_text(text, 'utf-8')
    for layer in launched.layers:
      code = _call(queued_resource.make_argv(launched, layer), cwd=folder)
      if code:
        return code
  return 0


def run_here(launched: spec.LaunchSpec) -> int:
  """Trains the layers here, in turn; stops at the first that does not end."""
  for layer in launched.layers:
    argv = [sys.executable, *launched.command(layer)[1:]]
    env = {'JAX_PLATFORMS': 'cpu'} | launched.env
    code = _call(argv, env=os.environ | env)
    if code:
      return code
  return 0


def _call(argv: Sequence[str], *, text: str | None = None, **kwargs) -> int:
  """Runs a program, to which SIGTERM is passed on; returns its exit code."""
  pipe = None if text is None else subprocess.PIPE
  try:
    child = subprocess.Popen(argv, stdin=pipe, encoding='utf-8', **kwargs)
  except FileNotFoundError:
    raise errors.MissingInputError(
        f'{argv[0]} is not on the PATH: install it, or render the documents and'
        ' take them to where it is'
    ) from None
  with _passed_on(child):
    child.communicate(text)
  # A child that a signal ended, as a shell says it.
  return child.returncode if child.returncode >= 0 else 128 - child.returncode


@contextlib.contextmanager
def _passed_on(child):
  before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


if __name__ == '__main__':
  sys.exit(main())
