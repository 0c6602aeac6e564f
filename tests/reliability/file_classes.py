"""The files of runs, releases, stores, caches and features, by class.

`docs/reliability.md` has the same table; `file_classes_test.py` compares them,
and `bit_flips_test.py` flips bits in each file.
"""

from typing import NamedTuple

# Damage is noticed when the file is read: an error of one line names it.
PROTECTED = 'protected'
# Results do not depend on the file.
ADVISORY = 'advisory'
# The format has no checksum, or not for the whole file.
FOREIGN = 'foreign'


class Row(NamedTuple):
  """The files that a pattern matches, their class, and what checks them."""

  pattern: str
  kind: str
  check: str


FILES = {
    'run': (
        Row(
            'config.json', PROTECTED, 'compared with the command at each start'
        ),
        Row('suite.json', PROTECTED, 'SHA-256 of its fields'),
        Row(
            'checkpoints/*/_CHECKPOINT_METADATA',
            PROTECTED,
            'CRC-32 of the record; a damaged checkpoint is set aside',
        ),
        Row(
            'checkpoints/*/state/*',
            PROTECTED,
            'checksums of OCDBT, and a digest of each array',
        ),
        Row('checkpoints/*/orbax.checkpoint', ADVISORY, 'not read'),
        Row('checkpoints/*/commit_success.txt', ADVISORY, 'not read'),
        Row(
            'evaluation/*',
            PROTECTED,
            'SHA-256 of each file in meta.json, and of its fields',
        ),
        Row('incidents/*', PROTECTED, 'SHA-256 of its fields'),
        Row('STATUS.json', ADVISORY, 'for people and launchers'),
        Row('starts.json', ADVISORY, 'the count of failures'),
        Row('env.json', ADVISORY, 'versions, for people'),
        Row('metrics*.jsonl', ADVISORY, 'curves; a run never reads them'),
        Row('tensorboard/*', ADVISORY, 'curves; a run never reads them'),
        Row('profile/*', ADVISORY, 'for the profiler'),
        Row('run.lock', ADVISORY, 'the name of a computer'),
    ),
    'release': (
        Row('suite.json', PROTECTED, 'SHA-256 of its fields'),
        Row('README.md', ADVISORY, 'the card, which may be edited'),
        Row('*', PROTECTED, 'SHA-256 in suite.json (`jumprelu verify`)'),
    ),
    'store': (
        Row('manifest.json', PROTECTED, 'CRC-32 of its fields'),
        Row('blocks.jsonl', PROTECTED, 'SHA-256 in manifest.json'),
        Row('store.lock', ADVISORY, 'the name of a computer'),
        Row('*/zarr.json', PROTECTED, 'compared with manifest.json'),
        Row('*', PROTECTED, 'CRC-32 of each shard of a block'),
    ),
    'cache': (
        Row('*/manifest.json', PROTECTED, 'SHA-256 of its fields'),
        Row('*.array_record', PROTECTED, 'hashes of ArrayRecord'),
    ),
    'features': (
        Row('manifest.json', PROTECTED, 'SHA-256 of its fields'),
        Row(
            '*.parquet',
            FOREIGN,
            'Parquet: pages have a checksum, the footer has none',
        ),
    ),
}
