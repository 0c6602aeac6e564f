"""Comparison of finished runs, bit for bit."""

from collections.abc import Iterator
import json
import pathlib
from typing import Any

import numpy as np

from jumprelu.files import json_files

# Fields of a line of metrics that measure time.
_TIMES = ('seconds',)


def differences(run: pathlib.Path, whole: pathlib.Path) -> Iterator[str]:
  """Yields a line for each difference between a run and a run without signals."""
  steps = [_steps(folder) for folder in (run, whole)]
  if steps[0][-1:] != steps[1][-1:]:
    yield f'last checkpoint {steps[0][-1:]}, wanted {steps[1][-1:]}'
    return
  ours, theirs = (state(folder, steps[1][-1]) for folder in (run, whole))
  for name in sorted(ours.keys() | theirs.keys()):
    if name not in ours or name not in theirs:
      yield f'only one run has {name}'
    elif _bits(ours[name]) != _bits(theirs[name]):
      yield f'{name} differs'
  if metrics(run) != metrics(whole):
    yield 'metrics.jsonl differs'
  for name in ('scales', 'data_digest', 'lm_digest'):
    values = [
        json_files.read_json(folder / 'suite.json').get(name)
        for folder in (run, whole)
    ]
    if values[0] != values[1]:
      yield f'{name} of suite.json differs'
  status = json_files.read_json(run / 'STATUS.json')
  if status.get('state') != 'done':
    yield f'the state is {status.get("state")}'
  for pattern in ('**/*orbax-checkpoint-tmp*', '**/*.partial', '**/*.corrupt*'):
    for path in run.glob(pattern):
      yield f'{path.relative_to(run)} was left'


def state(run: pathlib.Path, step: int) -> dict[str, Any]:
  """Returns the arrays and the record of a checkpoint."""
  from etils import epath
  import jax
  from orbax.checkpoint import v1 as ocp

  path = epath.Path(run) / 'checkpoints' / str(step)
  # The devices of the run are those of other processes.
  place = jax.sharding.SingleDeviceSharding(jax.devices('cpu')[0])
  stored: Any = ocp.metadata(path, checkpointable_name='state').metadata
  wanted = {
      name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
      for name, leaf in stored.items()
  }
  arrays = ocp.load(path, wanted, checkpointable_name='state')
  result = {name: np.asarray(value) for name, value in arrays.items()}
  sealed: Any = ocp.metadata(path).custom_metadata
  body = sealed['body']
  # The environment and the time of a start are parts of the record.
  meta = {
      name: body['meta'].get(name)
      for name in ('scales', 'data_digest', 'lm_digest', 'tokens_kept')
  }
  record = {'leaves': body['leaves'], 'step': body['step'], **meta}
  text = json.dumps(record, sort_keys=True)
  return {**result, 'record': np.frombuffer(text.encode(), np.uint8)}


def metrics(run: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the lines of metrics without times."""
  return [
      {name: value for name, value in line.items() if name not in _TIMES}
      for line in json_files.read_lines(run / 'metrics.jsonl')
  ]


def _steps(run: pathlib.Path) -> list[int]:
  """Returns the steps of the checkpoints of a run, sorted."""
  folder = run / 'checkpoints'
  names = [path.name for path in folder.iterdir()] if folder.exists() else []
  return sorted(int(name) for name in names if name.isdigit())


def _bits(array: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
  return str(array.dtype), array.shape, array.tobytes()
