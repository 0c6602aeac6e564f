"""Activations on disk: a job's shuffled blocks, in zarr3.

Streaming is the default, because it never moves activations off the device. A
store serves small experiments that train many times on the same blocks. Its
folder holds

  TAP/, keep/     one zarr3 array each, [steps, shards, rows, d_site], with
                  names such as layer_12.resid_post: the rows of batch `step`
                  by logical shard. Reshaped to [rows, d_site], an array is in
                  the order of training
  blocks.jsonl    one line per block: rows kept and dropped, digests
  progress.json   the description of an incomplete store
  manifest.json   the description and its digests; written last

Every chunk has its crc32c. A file holds whole logical shards of a single block.
A stopped writer therefore resumes with the next block, and a process reads the
files of its own devices only.
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
