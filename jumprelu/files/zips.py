"""The errors by which Python's zipfile shows that a file is damaged."""

import lzma
import struct
import zipfile
import zlib

# Sizes and offsets of an archive are not checked before they are used, so that
# damage to them ends as an error of seeking, of decompression or of decoding. An
# encrypted entry is a RuntimeError. Errors of permissions are not included.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    OSError,
)
