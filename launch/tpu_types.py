"""TPU slices: accelerator, topology and their names in GKE and gcloud.

A host (a VM or a node) of every type in this module has four chips, except in a
slice of one chip.
"""

import dataclasses
import math

from jumprelu import errors
from jumprelu.files import dotted

_CHIPS_A_HOST = 4

_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBES = (
    '2x2x1',
    '2x2x2',
    '2x2x4',
    '2x4x4',
    '4x4x4',
    '4x4x8',
    '4x8x8',
    '8x8x8',
)


@dataclasses.dataclass(frozen=True)
class _Accelerator:
  """A generation of TPUs."""

  # Value of the node label cloud.google.com/gke-tpu-accelerator.
  gke_accelerator: str
  # Machine type of a GKE node pool; {} is the number of chips per host.
  machine: str
  # Start of an accelerator type of gcloud, before the dash.
  gcloud_prefix: str
  # Runtime version of a TPU VM.
  runtime_version: str
  topologies: tuple[str, ...]
  # Cores per chip, because the names of gcloud's types count cores, not chips.
  cores: int = 1


ACCELERATORS = {
    'v4': _Accelerator(
        'tpu-v4-podslice',
        'ct4p-hightpu-{}t',
        'v4',
        'tpu-ubuntu2204-base',
        _CUBES,
        cores=2,
    ),
    'v5e': _Accelerator(
        'tpu-v5-lite-podslice',
        'ct5lp-hightpu-{}t',
        'v5litepod',
        'v2-alpha-tpuv5-lite',
        _FLAT,
    ),
    'v5p': _Accelerator(
        'tpu-v5p-slice',
        'ct5p-hightpu-{}t',
        'v5p',
        'v2-alpha-tpuv5',
        _CUBES,
        cores=2,
    ),
    'v6e': _Accelerator(
        'tpu-v6e-slice',
        'ct6e-standard-{}t',
        'v6e',
        'v2-alpha-tpuv6e',
        _FLAT,
    ),
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """One slice of TPU chips."""

  topology: str
  chips: int
  hosts: int
  chips_a_host: int
  gke_accelerator: str
  machine: str
  gcloud_type: str
  runtime_version: str


def make_slice(accelerator: str, topology: str) -> Slice:
  """Returns the slice of an accelerator and a topology.

  Raises:
    UserError: The accelerator or its topology is unknown; the error lists all
      known values.
  """
  if accelerator not in ACCELERATORS:
    raise errors.UserError(
        f'--accelerator={accelerator}: unknown'
        f'{dotted.nearest(accelerator, ACCELERATORS)}; known:'
        f' {", ".join(ACCELERATORS)}'
    )
  kind = ACCELERATORS[accelerator]
  if topology not in kind.topologies:
    raise errors.UserError(
        f'--topology={topology}: {accelerator} has'
        f' {", ".join(kind.topologies)}'
    )
  chips = math.prod(map(int, topology.split('x')))
  chips_a_host = min(chips, _CHIPS_A_HOST)
  return Slice(
      topology=topology,
      chips=chips,
      hosts=chips // chips_a_host,
      chips_a_host=chips_a_host,
      gke_accelerator=kind.gke_accelerator,
      machine=kind.machine.format(chips_a_host),
      gcloud_type=f'{kind.gcloud_prefix}-{chips * kind.cores}',
      runtime_version=kind.runtime_version,
  )
