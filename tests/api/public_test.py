"""Tests of the public names, the README's lines and the API's page."""

import importlib
import pathlib
import re
import subprocess
import sys

from experiments import api_reference
import jumprelu

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_no_public_name_is_hidden_by_a_room():
  rooms = [p.name for p in (_ROOT / 'jumprelu').iterdir() if p.is_dir()]
  rooms += [p.stem for p in (_ROOT / 'jumprelu').glob('*.py')]
  assert not set(rooms) & set(jumprelu.__all__)
  values = {name: getattr(jumprelu, name) for name in jumprelu.__all__}
  for room in rooms:
    if not room.startswith('_'):
      importlib.import_module(f'jumprelu.{room}')
  for name, value in values.items():
    assert getattr(jumprelu, name) is value, name


def test_every_public_name_is_exported_and_listed():
  assert set(jumprelu.__all__) == set(jumprelu._PUBLIC) <= set(dir(jumprelu))


def test_an_unknown_name_is_an_attribute_error():
  assert not hasattr(jumprelu, 'no_such_name')


def test_importing_the_package_imports_nothing_else():
  code = (
      'import sys; before = set(sys.modules); import jumprelu;'
      'tops = {m.partition(".")[0] for m in set(sys.modules) - before};'
      'print(sorted(tops - sys.stdlib_module_names))'
  )
  done = subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == "['jumprelu']"


def test_the_page_of_the_api_is_that_of_the_docstrings():
  page = (_ROOT / 'docs' / 'api.md').read_text('utf-8')
  assert page == api_reference.render(), 'python -m experiments.api_reference'


def test_the_lines_of_the_readme_run(release, tmp_path, monkeypatch, capsys):
  text = (_ROOT / 'README.md').read_text('utf-8')
  (code,) = re.findall(r'```python\n(import jumprelu\n.*?)```', text, re.DOTALL)
  (tmp_path / 'jumprelu_demo').mkdir()
  (tmp_path / 'jumprelu_demo' / 'release').symlink_to(release)
  monkeypatch.chdir(tmp_path)
  # The small suite of the test has fewer latents than the demo's.
  code = code.replace('sae.latent(434)', 'sae.latent(17, tokens=2_000)')
  exec(compile(code, 'README.md', 'exec'), {})
  shown = capsys.readouterr().out
  assert "'with'" in shown and 'Attribution of' in shown and 'def ' in shown
