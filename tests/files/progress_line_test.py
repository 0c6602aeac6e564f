"""The progress line of a long loop."""

from jumprelu.files import progress_line


def set_clock(monkeypatch, *seconds):
  times = iter(seconds)
  monkeypatch.setattr(progress_line.time, 'monotonic', lambda: next(times))


def test_no_line_is_printed_before_ten_seconds(monkeypatch, capsys):
  set_clock(monkeypatch, 0.0, 5.0, 12.0, 13.0)
  progress = progress_line.ProgressLine('reading', 4)
  progress.update(1)
  assert not capsys.readouterr().err
  progress.update(2)
  assert capsys.readouterr().err == 'reading: 50%, 12 s left\n'
  progress.update(3)
  assert not capsys.readouterr().err


def test_a_loop_prints_its_progress_and_yields_every_item(monkeypatch, capsys):
  set_clock(monkeypatch, 0.0, 0.0, 20.0)
  progress = progress_line.ProgressLine('reading', 2)
  assert list(progress.over('ab')) == ['a', 'b']
  assert capsys.readouterr().err == 'reading: 50%, 20 s left\n'


def test_a_quiet_loop_prints_nothing(monkeypatch, capsys):
  set_clock(monkeypatch, 0.0, 20.0)
  progress_line.ProgressLine('reading', 2, quiet=True).update(1)
  assert not capsys.readouterr().err
