"""Stores of activations: the shuffled blocks of a run on disk, in zarr3.

Streaming is the default, because it never moves activations off the device. A
store serves small experiments that train many times on the same blocks. The
folder of a store holds

  TAP/            one zarr3 array per tap, such as layer_12.resid_post/, with
                  the shape [steps, shards, rows, d_site]. It holds the rows of
                  each step's batch by logical shard, so that the array reshaped
                  to [-1, d_site] is in the order of training
  keep/           the keep mask, a zarr3 array [steps, shards, rows] of bytes
  blocks.jsonl    one line per block: the numbers of its kept and dropped rows,
                  and the CRC-32 of each logical shard of its arrays
  progress.json   the description of an incomplete store
  manifest.json   the description of a complete store; written last
  store.lock      locked by the process that writes

The CRC-32s are compared whenever rows are read. A file holds whole logical
shards of a single block, so that a stopped writer can resume with the next
block, and each process reads only the files of its own devices.
"""

from jumprelu.activations.store.geometry import Geometry, make_geometry
from jumprelu.activations.store.reader import Stored
from jumprelu.activations.store.record import identity, read_manifest
from jumprelu.activations.store.writer import Writer

__all__ = [
    'Geometry',
    'Stored',
    'Writer',
    'identity',
    'make_geometry',
    'read_manifest',
]
