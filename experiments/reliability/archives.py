"""Seeded mutations inside of archives, whose checksums and sizes are renewed."""

import gzip
import io
import random
import warnings
import zipfile

from experiments.reliability import mutations

_NAMES = (
    '../../evil.npy', '/etc/evil.npy', 'W_enc.npy', 'threshold.npy', 'evil.txt',
    'W_dec', '', 'a' * 300 + '.npy', 'archive/data.pkl', 'archive/data/9',
)  # fmt: skip
_SHAPES = (
    b'()', b'(0,)', b'(-1,)', b'(1,)', b'(4, 8)', b'(8, 4)', b'(2**40,)',
    b'(1099511627776,)', b'(9223372036854775807, 2)', b'(True,)', b'(1.5,)',
    b'((((', b'None', b'(4, 8, 1)', b'(99999999999999999999,)',
)  # fmt: skip
_TYPES = (
    b"'|O'", b"'<f8'", b"'<f2'", b"'>f4'", b"'<i4'", b"'|S1000000000'",
    b"'<U99'", b"'|V4'", b"[('a', '<f4')]", b'None', b"'<c8'", b"'|b1'", b"''",
)  # fmt: skip


def of_zip(data: bytes, rng: random.Random) -> bytes:
  """Returns a zip file with a changed entry, written anew."""
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    entries = [
        [i.filename, archive.read(i), i.compress_type]
        for i in archive.infolist()
    ]
  entry = rng.choice(entries)
  kind = rng.randrange(8)
  if kind == 0:
    entries.remove(entry)
  elif kind == 1:
    entry[0] = rng.choice(_NAMES)
  elif kind == 2:
    entries.append([rng.choice((*_NAMES, entry[0])), entry[1], entry[2]])
  elif kind == 3:
    entry[2] = rng.choice(
        (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
            zipfile.ZIP_BZIP2,
            zipfile.ZIP_LZMA,
        )
    )
  elif kind == 4:
    other = rng.choice(entries)
    entry[1], other[1] = other[1], entry[1]
  elif entry[0].endswith('.npy'):
    entry[1] = of_npy(entry[1], rng)
  else:
    entry[1] = mutations.of_bytes(entry[1], rng)
  file = io.BytesIO()
  with warnings.catch_warnings(), zipfile.ZipFile(file, 'w') as archive:
    warnings.simplefilter('ignore')  # Of a name that occurs twice.
    for name, content, packing in entries:
      archive.writestr(zipfile.ZipInfo(name), content, packing)
  return file.getvalue()


def of_npy(data: bytes, rng: random.Random) -> bytes:
  """Returns an array file with a changed shape, type or bytes."""
  kind = rng.randrange(4)
  start, end = data.find(b"'shape': ") + 9, data.find(b', }')
  if kind == 0 and start > 8:
    data = data[:start] + rng.choice(_SHAPES) + data[end:]
  elif kind == 1 and start > 8:
    first, last = data.find(b"'descr': ") + 9, data.find(b", 'fortran")
    data = data[:first] + rng.choice(_TYPES) + data[last:]
  elif kind == 2:
    data = data.replace(b'False', rng.choice((b'True ', b'None ', b'12345')))
  else:
    return mutations.of_bytes(data, rng)
  end = data.find(b'\n', 10)
  if rng.random() < 0.8 and end > 0:  # With the right length of the header.
    data = data[:8] + (end - 9).to_bytes(2, 'little') + data[10:]
  return data


def of_safetensors(data: bytes, rng: random.Random) -> bytes:
  """Returns a safetensors file with a changed header and its right length."""
  size = int.from_bytes(data[:8], 'little')
  header = mutations.of_json(data[8 : 8 + size], rng)
  return len(header).to_bytes(8, 'little') + header + data[8 + size :]


def of_gzip(data: bytes, rng: random.Random) -> bytes:
  """Returns a gzip file with changed lines."""
  return gzip.compress(mutations.of_lines(gzip.decompress(data), rng), 1)
