"""Released SAEs in the formats that people publish, one file a format.

What a folder does not say about its SAEs (model, layer, site) is read off the
names of the folders above it where those say it, as Gemma Scope's do; the rest
must be given.
"""

from jumprelu.release.formats.complete import complete, model_of
from jumprelu.release.formats.find import FORMATS, find
from jumprelu.release.formats.gemma_scope_l0 import l0s
from jumprelu.release.formats.record import Origin, Released

__all__ = [
    'FORMATS',
    'Origin',
    'Released',
    'complete',
    'find',
    'l0s',
    'model_of',
]
