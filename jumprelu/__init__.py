"""Training, evaluation and release of suites of JumpReLU SAEs on Gemma 2.

Importing the package is fast, because gemma, TensorFlow and matplotlib are
imported only by the functions that use them.
"""

__version__ = '0.1.0'
