"""Activations on disk: a job's blocks, shuffled already, in zarr3.

The second choice. Online, activations never leave the device; a store serves
small experiments that train many times on the same blocks. A folder holds

  TAP/, keep/     one zarr3 array each, [steps, shards, rows, d_site], named
                  as layer_12.resid_post: what batch `step` takes from each
                  logical shard. Flattened it is [rows, d_site] in the order in
                  which training takes them
  blocks.jsonl    a line a block: rows kept and dropped, digests
  progress.json   what is being written, until it is complete
  manifest.json   the same and its digests; written last

Every chunk carries its crc32c. No shard file spans two blocks, and each holds
whole logical shards: a writer that was stopped goes on with the next block, and
a process reads the files of its own devices only.
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
