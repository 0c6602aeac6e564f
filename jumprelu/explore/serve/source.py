"""The SAEs and the language model of a server, checked first and loaded later."""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
from typing import Any

import jax

from jumprelu import lm
from jumprelu.api import dictionary, models
from jumprelu.explore.serve import live
from jumprelu.lm import gemma
from jumprelu.ops import products
from jumprelu.release import formats
from jumprelu.release.formats import record
from jumprelu.training import config as config_lib


@dataclasses.dataclass(frozen=True)
class Source:
  """The parts of a live model.

  Attributes:
    released: The SAEs by path; their origins are complete.
    lm_dtype: The precision of the language model: float32, bfloat16 or auto.
  """

  released: Mapping[str, record.Released]
  lm_dtype: str = 'auto'

  @property
  def max_tokens(self) -> int:
    """The largest number of tokens of a text, read from the model's config.

    Raises:
      UserError: The SAEs have several models, or the model is unknown.
    """
    return live.lengths(lm.get_config(formats.model_of(self.released)))[-1]

  def import_libraries(self) -> None:
    """Imports the language model's libraries, before any thread is started.

    While gemma is imported, it replaces Python's import function and its
    messages are hidden; both would break the imports of other threads.
    """
    gemma.make_module(lm.get_config(formats.model_of(self.released)))

  def load(self, report: Callable[[str], None]) -> live.Live:
    """Returns the live model, with all programs compiled.

    Args:
      report: Is called with a line at the start of each phase.
    """
    name = formats.model_of(self.released)
    report(f'loading {name}')
    dtype = config_lib.dtype_on(self.lm_dtype, jax.default_backend())
    model = models.load_lm(name, dtype=dtype)
    saes = {
        path: dictionary.Dictionary(sae, path=path)
        for path, sae in self.released.items()
    }
    made = live.Live(saes, model)
    made.warm_up(report)
    return made

  def precision(self) -> contextlib.AbstractContextManager[Any]:
    """Returns a context with the precision of the training's products."""
    training = next(iter(self.released.values())).training
    return products.precision(training.get('matmul_precision'))
