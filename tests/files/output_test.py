"""Text of C++ libraries is dropped, and that of Python is shown."""

import os
import subprocess
import sys

from jumprelu.files import output


def test_native_text_is_dropped_and_text_of_python_is_shown(capfd):
  with capfd.disabled():
    script = (
        'import os, sys\n'
        'from jumprelu.files import output\n'
        'with output.native_dropped():\n'
        '  os.write(2, b"native text\\n")\n'
        '  print("text of python", file=sys.stderr)\n'
        '  os.write(sys.stderr.fileno(), b"stacks\\n")\n'
        'os.write(2, b"native again\\n")\n'
        'print("python again", file=sys.stderr)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', script],
        capture_output=True,
        text=True,
        check=True,
    )
  assert done.stderr.splitlines() == [
      'text of python',
      'stacks',
      'native again',
      'python again',
  ]


def test_a_stream_without_a_file_is_left_alone(monkeypatch, capfd):
  lines = []

  class Cell:
    """The output of a cell in a notebook."""

    def write(self, text):
      lines.append(text)

    def flush(self):
      pass

  monkeypatch.setattr(sys, 'stderr', Cell())
  with output.native_dropped():
    print('shown', file=sys.stderr)
    os.write(2, b'native text\n')
  assert ''.join(lines) == 'shown\n'
  assert 'native' not in capfd.readouterr().err
