"""A feature with noise: samples, densities and the best estimator.

The feature is present on a share of rows, with a size near 1, and is zero on
the others. The observation is the feature plus noise. Sizes and noise are
Gaussian, so the conditional mean of the feature given the observation has a
closed form.
"""

SHARE = 0.1  # Share of rows on which the feature is present.
SPREAD = 0.2  # Standard deviation of its size.


def densities(x, noise):
  """Returns both modes' densities at x, and the feature's mean given x."""
  import numpy as np

  def normal(mean, deviation):
    size = (2 * np.pi) ** 0.5 * deviation
    return np.exp(-np.square((x - mean) / deviation) / 2) / size

  total = SPREAD**2 + noise**2
  absent = (1 - SHARE) * normal(0, noise)
  present = SHARE * normal(1, total**0.5)
  size = 1 + SPREAD**2 / total * (x - 1)
  return absent, present, size * present / (absent + present)


def best_fvu(noise):
  """Returns the least possible FVU, which the conditional mean attains."""
  import numpy as np

  x = np.linspace(-4, 5, 9001)
  absent, present, mean = densities(x, noise)
  square = SHARE * (1 + SPREAD**2)
  explained = (np.square(mean) * (absent + present)).sum() * (x[1] - x[0])
  return float((square - explained) / (square - SHARE**2))


def draw(rng, noises, shape):
  """Returns random observations and their features, [noises, *shape] each."""
  shape = (len(noises), *shape)
  present = rng.random(shape) < SHARE
  feature = present * (1 + SPREAD * rng.normal(size=shape))
  noise = noises.reshape(-1, *[1] * (len(shape) - 1))
  x = feature + noise * rng.normal(size=shape)
  return x.astype('float32'), feature.astype('float32')
