"""Readers of published SAEs, one file per format.

If the files of a folder do not name model, layer and site, these come from the
names of the parent folders, as in Gemma Scope; flags must supply the rest.
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
