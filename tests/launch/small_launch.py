"""A valid launch for tests to modify, and fake programs."""

import json
import stat
import sys

from launch import options, spec

IMAGE = 'europe-docker.pkg.dev/p/r/jumprelu@sha256:' + '0a' * 32

FLAGS = (
    '--model=gemma2_2b',
    '--sites=resid_post,mlp_out,attn_heads',
    '--recipe=paper',
    '--widths=16384,65536',
    '--sparsity_coefficients=resid_post:1e-3+3e-3,2e-3',
)

_OPTIONS = {
    'run': 'scope-2b',
    'layers': '12',
    'out': 'gs://my-bucket/runs',
    'image': IMAGE,
    'accelerator': 'v5e',
    'topology': '4x4',
    'project': 'my-project',
    'zone': 'us-central1-a',
}


def make_spec(*flags, **changes):
  """Returns a spec with trainer flags (default: FLAGS) and changed options."""
  return spec.LaunchSpec(
      options.Options(**(_OPTIONS | changes)), flags or FLAGS
  )


def argv(*flags, **changes):
  """Returns the launcher's arguments of `make_spec` with the same arguments."""
  launcher_args = [
      f'--{name}={value}' for name, value in (_OPTIONS | changes).items()
  ]
  return [*launcher_args, '--', *(flags or FLAGS)]


def install_fakes(folder, monkeypatch, *names, exit_code=0):
  """Puts programs on the PATH that only record their calls.

  Returns:
    A function that lists the calls: name, arguments, stdin and the files of the
    working directory.
  """
  log = folder / 'calls.jsonl'
  for name in names:
    path = folder / name
    path.write_text(
        f'#!{sys.executable}\n'
        'import json, os, select, sys\n'
        'text = ""\n'
        'if any(a.endswith("=-") for a in sys.argv): text = sys.stdin.read()\n'
        'files = {n: open(n).read() for n in os.listdir() if n.endswith(".sh")}\n'
        f'call = dict(name={name!r}, argv=sys.argv[1:], text=text, files=files)\n'
        f'open({str(log)!r}, "a").write(json.dumps(call) + "\\n")\n'
        f'sys.exit({exit_code})\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
  monkeypatch.setenv('PATH', str(folder), prepend=':')

  def calls():
    text = log.read_text() if log.exists() else ''
    return [json.loads(line) for line in text.splitlines()]

  return calls
