"""The metrics of a run as scalars for TensorBoard, by the name of the member."""

from collections.abc import Mapping
import os
from typing import Any

from jumprelu import errors, extras

# Numbers of a line of metrics.jsonl that concern the whole run.
_OF_RUN = (
    'learning_rate',
    'sparsity_factor',
    'tokens_trained',
    'rows_dropped',
    'seconds',
)


class Scalars:
  """Writes the lines of metrics.jsonl as event files of TensorBoard.

  The tags are METRIC/MEMBER, such as l0/resid_post-512-jumprelu-l0_20-seed_0,
  and run/NAME for numbers of the whole run.
  """

  def __init__(self, directory: str | os.PathLike[str], *, step: int):
    """Opens a new event file.

    Args:
      directory: The folder of the event files.
      step: The step at which the run starts. TensorBoard discards later steps
        of earlier event files.

    Raises:
      MissingExtraError: tensorboardX is not installed.
      UserError: the folder is not on a disk.
    """
    with extras.imports():
      import tensorboardX

    path = os.fspath(directory)
    if '://' in path:
      raise errors.UserError(
          f'--tensorboard: {path} is in remote storage; choose a local --out, or'
          ' leave --tensorboard out and read metrics.jsonl'
      )
    # Otherwise the files of two starts within a second have the same name, and
    # the second start would replace the file of the first.
    suffix = f'.step_{step:012d}'
    self._writer = tensorboardX.SummaryWriter(
        path, purge_step=step + 1, filename_suffix=suffix
    )

  def write(self, record: Mapping[str, Any]) -> None:
    """Writes the scalars of one line of metrics."""
    step = record['step']
    for name in _OF_RUN:
      self._writer.add_scalar(f'run/{name}', record[name], step)
    for group, metrics in record['groups'].items():
      for metric, values in metrics.items():
        for member, value in zip(record['members'][group], values, strict=True):
          self._writer.add_scalar(f'{metric}/{member}', value, step)

  def close(self) -> None:
    """Writes the last scalars to the disk."""
    self._writer.close()
