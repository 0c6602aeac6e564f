"""Text -> tokens -> packed rows -> a cache on disk -> rows by index.

`prepare` reads a corpus once into two caches (train, held out). `loader.Loader`
returns row i of the corpus, which is shuffled and repeated endlessly. This
package imports TensorFlow only to read a TFDS set.
"""

from jumprelu.data.cache import TokenCache
from jumprelu.data.config import Config
from jumprelu.data.corpus import Prepared, held_out_documents, prepare
from jumprelu.data.tokenizer import Tokenizer, train_tokenizer

__all__ = [
    'Config',
    'Prepared',
    'TokenCache',
    'Tokenizer',
    'held_out_documents',
    'prepare',
    'train_tokenizer',
]
