"""The distribution: what is installed, what it needs, and why so pinned."""

import importlib.util
import pathlib
import re
import sys

import setuptools

_HERE = pathlib.Path(__file__).parent
_VERSION = re.search(
    r"^__version__ = '(.+)'$",
    (_HERE / 'jumprelu' / '__init__.py').read_text('utf-8'),
    re.MULTILINE,
).group(1)
_README = _HERE / 'README.md'

# Upper bounds stand where the next minor version of a 0.x library may break
# us. `constraints.txt` is a full set that is known to work.
_REQUIRES = [
    # Explicit mesh axis types and the custom_vjp behaviour we test against.
    'jax>=0.10.2,<0.11',
    # The modules of gemma are Linen modules; flax.struct for our records.
    'flax>=0.12.8,<0.13',
    # Trains the embedded language model; gemma and kauldron take any version.
    'optax>=0.2.8,<0.3',
    # Checkpoints, written asynchronously.
    'orbax-checkpoint>=0.12.8,<0.13',
    # Stored activations; orbax brings it.
    'tensorstore>=0.1.74',
    # Index shuffling of the token cache: the order of the data depends on it.
    'grain>=0.2.18,<0.3',
    # Record files of the token cache.
    'array-record>=0.8.3,<0.9',
    # Text data sets by name; imported only for `--data=tfds:...`.
    'tensorflow-datasets>=4.9.9,<5',
    # gemma and kauldron import it; 2.20 and older do not accept protobuf 6.
    'tensorflow>=2.21,<2.22',
    # Gemma 2's modules. 3.3.0 works with kauldron 1.4.2 and jax 0.10, which
    # other pairs of versions do not.
    'gemma==3.3.0',
    'kauldron==1.4.2',
    # 0.2.3 needs protobuf 7, which xmanager (required by kauldron) excludes:
    # without these two lines pip backtracks for more than a quarter of an hour.
    'sentencepiece>=0.2.1,<0.2.3',
    'protobuf>=6.31,<7',
    # kubernetes (required by xmanager) from 37.0.2 on wants 3, which
    # google-cloud-bigquery excludes; pips before 24 never find that out.
    'python-dateutil<3',
    # Flags and logging.
    'absl-py>=2.3',
    # Shapes in signatures.
    'jaxtyping>=0.3.2',
    'numpy>=2.0',
    # bfloat16 in safetensors files read through numpy.
    'ml_dtypes>=0.5',
    # Matching of latents across seeds (jax requires it as well).
    'scipy>=1.13',
    # Weights of the embedded language model.
    'safetensors>=0.5.3',
    # Parquet: results out, text in.
    'pyarrow>=18',
    # The frontier plot.
    'matplotlib>=3.9',
]

_EXTRAS = {
    'test': [
        'pytest>=8.3',
        'pytest-xdist>=3.6',
        'pytest-timeout>=2.3',
        # Checks the shapes of `jaxtyping` in tests.
        'beartype>=0.20',
        # Manifests of launch/ against their schema.
        'jsonschema>=4.23',
        # `test.sh`: lint, format and types.
        'ruff>=0.12',
        'pyink>=24.10',
        'basedpyright>=1.31',
    ],
    # Live comparison with other people's code; the ordinary tests hold goldens.
    # SAEBench is not among it: it wants a NumPy older than ours
    # (experiments/goldens/make_metric_goldens.py).
    'interop': ['torch>=2.6', 'transformers>=5.23', 'sae-lens>=6.54,<7'],
    # Compiles for TPUs without one (`jumprelu plan --compile`, tests/tpu): the
    # release that belongs to the pinned jax.
    'tpu-compile': ['libtpu==0.0.52'],
    'tpu': ['jax[tpu]>=0.10.2,<0.11'],
    'cuda': ['jax[cuda12]>=0.10.2,<0.11'],
}


def _native_step() -> list[setuptools.Extension]:
  """The JumpReLU step in C++: optional, or nobody without a compiler installs.

  It needs headers of XLA, which come with jaxlib, and nothing of Python's. It
  is compiled for several instruction sets, of which the best is taken when it
  is loaded: what is built on one machine runs on another.
  """
  jaxlib = importlib.util.find_spec('jaxlib')
  if jaxlib is None or sys.platform == 'win32':
    return []
  headers = pathlib.Path(jaxlib.submodule_search_locations[0]) / 'include'
  folder = 'jumprelu/ops/native'
  return [
      setuptools.Extension(
          'jumprelu.ops.native._step',
          [f'{folder}/step.cc', f'{folder}/ffi.cc'],
          depends=[f'{folder}/step.h', f'{folder}/loops.h'],
          extra_compile_args=[
              '-O3',
              '-std=c++17',
              '-fopenmp-simd',
              '-fno-math-errno',
              '-isystem',
              str(headers),
          ],
          language='c++',
          optional=True,
      )
  ]


setuptools.setup(
    name='jumprelu',
    version=_VERSION,
    description=(
        'Train, evaluate and release suites of JumpReLU sparse autoencoders on'
        ' Gemma 2, as Gemma Scope did'
    ),
    long_description=_README.read_text('utf-8') if _README.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.11',
    packages=setuptools.find_packages(include=['jumprelu', 'jumprelu.*']),
    package_data={
        'jumprelu.lm': ['nano/*'],
        'jumprelu.ops.native': ['*.cc', '*.h'],
        'jumprelu.release.write.formats': ['gemma_scope_l0.json'],
    },
    install_requires=_REQUIRES,
    extras_require=_EXTRAS,
    ext_modules=_native_step(),
    entry_points={'console_scripts': ['jumprelu = jumprelu.run.main:main']},
)
