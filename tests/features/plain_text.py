"""Documents of a token cache by plain Python."""

import numpy as np

from jumprelu.data import packing


def document_starts(cache):
  """Returns the start of each token's document, for all rows of the cache."""
  tokens = cache.tokens_at(np.arange(len(cache)))
  starts, current, ended = np.zeros(tokens.size, int), 0, True
  for i, token in enumerate(tokens.reshape(-1).tolist()):
    if token == packing.BOS and ended:
      current = i
    starts[i] = current
    ended = token == packing.EOS if token != packing.BOS else False
  return starts.reshape(tokens.shape)
