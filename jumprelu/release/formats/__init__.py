"""Readers of published SAEs, one file per format.

An SAE's files may not name the model, layer and site that the SAE reads. They
are then read from the names of the parent folders, as in Gemma Scope. Flags
must supply those that no folder names.
"""

from jumprelu.release.formats.complete import complete, model_of
from jumprelu.release.formats.find import FORMATS, find, select
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
    'select',
]
