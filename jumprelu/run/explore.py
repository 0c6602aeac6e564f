"""Writes the page on which the latents of a release are looked at.

The page shows each SAE and each latent: where it fires on held-out text, which
tokens it promotes, and its neighbours. It opens from the disk in any browser
and loads nothing over the network. An --out that ends in .html becomes one
file. Any other --out becomes a folder with an index.html that loads latents on
demand, for suites that are too large for one file.

  jumprelu explore --release=jumprelu_demo/release --out=page.html
  jumprelu explore --release=gemma-scope-2b-pt-res/layer_20/width_16k --out=page

--features names a folder that `jumprelu features` wrote for the same SAEs.
Without it, features are collected first, into a folder next to --out whose name
ends in .features, which later calls reuse.

  jumprelu explore --release=jumprelu_demo/release --serve

serves the page on this computer instead, with the language model: type a text
and see which latents fire, how the SAE changes the next token, and which
latents cause it. Only this computer can reach the server, unless --host names
another address, and texts are not stored. Without --features, they are in the
folder `features` beside the release, where `jumprelu demo` writes them, or in
one named after the release. It needs the extra `serve`. Ctrl-C stops it.
"""

from collections.abc import Mapping
import functools
import pathlib
import sys
from typing import Any

from absl import flags as absl_flags

from jumprelu import errors, extras
from jumprelu.files import folder_kinds, remote, wording
from jumprelu.run import features as features_command
from jumprelu.run import main

POSITIONAL = 'release'
EXTRA = 'train'
MAIN_FLAGS = (
    'release',
    'out',
    'features',
    'run',
    'serve',
    'port',
    'members',
    'tokens',
    'data',
    'model',
)


def define_flags(fv: absl_flags.FlagValues) -> None:
  """Declares the command's flags."""
  from jumprelu.run import flags

  string = functools.partial(absl_flags.DEFINE_string, flag_values=fv)
  string('release', None, 'Release directory, or a folder of published SAEs.')
  string('out', None, 'The page: PAGE.html, or a folder.')
  string('features', None, 'Folder of features of these SAEs.')
  string(
      'run', None, "Run directory, for the training curves of the page's SAEs."
  )
  absl_flags.DEFINE_boolean(
      'serve',
      False,
      'Serve the page with a live language model instead of writing it.',
      flag_values=fv,
  )
  flags.define_integer(
      fv,
      'port',
      8080,
      'Port of --serve; 0 chooses one that is not in use.',
      lower_bound=0,
      upper_bound=65535,
  )
  string(
      'host',
      '127.0.0.1',
      'Address of --serve; with any other, other computers can reach it too.',
  )
  features_command.define_collection_flags(fv)


def run(fv: absl_flags.FlagValues) -> None:
  """Checks the flags, collects features if needed, and writes the page."""
  needed = ('release',) if fv.serve else ('release', 'out')
  problems = [f'--{name} is needed' for name in needed if not fv[name].value]
  if fv.serve and fv.out:
    problems.append('--serve writes no page; leave out --out')
  if problems:
    raise errors.UserError('; '.join(problems))
  if fv.serve:
    serve(fv)
    return
  out = remote.local('out', fv.out)
  remote.local('release', fv.release)
  folder_kinds.refuse_inside_release('out', out)

  from jumprelu.explore import write

  as_file = out.suffix == '.html'
  write.check_out(out, as_file=as_file)
  page = page_of(
      fv, features_command.load(fv), default=out.with_suffix('.features')
  )
  written = (write.write_file if as_file else write.write_folder)(page, out)
  members = page.index['members']
  latents = sum(member['width'] for member in members)
  print(
      f'{written.path}: {wording.count(len(members), "member")},'
      f' {latents:,} latents,'
      f' {written.size / 2**20:.1f} MiB; open it in a browser:'
      f' {written.path.absolute().as_uri()}'
  )
  if as_file and written.size > write.LARGE_BYTES:
    print('The file is large; --out=FOLDER writes a page that opens faster.')


def serve(fv: absl_flags.FlagValues) -> None:
  """Serves the page with a live language model until it is stopped."""
  extras.check('serve')
  from jumprelu.explore.serve import app, server, source, worker

  release = remote.local('release', fv.release)
  # A wrong model and a port in use raise errors before features are collected.
  loaded = features_command.load(fv)
  parts = source.Source(loaded, lm_dtype=fv.lm_dtype)
  max_tokens = parts.max_tokens
  listener = server.bind(fv.host, fv.port)
  # `jumprelu demo` writes features beside its release.
  demo = release.parent / 'features' / 'manifest.json'
  name = 'features' if demo.exists() else f'{release.name}.features'
  page = page_of(fv, loaded, default=release.parent / name)
  print('explore: page', flush=True)
  parts.import_libraries()
  server.run(
      app.make_page(page, max_tokens=max_tokens),
      worker.Worker(parts.load, context=parts.precision()),
      listener,
      host=fv.host,
  )


def page_of(
    fv: absl_flags.FlagValues,
    loaded: Mapping[str, Any],
    *,
    default: pathlib.Path,
) -> Any:
  """Returns the data of the page; features are collected if there are none.

  Args:
    fv: The flags.
    loaded: The SAEs of the release.
    default: The folder of features if --features names none.

  Raises:
    UserError: The folder has features of other SAEs.
  """
  from jumprelu.explore import release_page

  folder = pathlib.Path(fv.features or default).expanduser()
  if fv.features or folder.exists():
    release_page.check_features(folder, loaded)
  else:
    features_command.collect_with_flags(fv, loaded, folder)
  return release_page.data(
      remote.local('release', fv.release),
      folder,
      members=loaded,
      run=remote.local('run', fv.run) if fv.run else None,
  )


if __name__ == '__main__':
  sys.exit(main.launch('explore'))
