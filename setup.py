"""The distribution: its packages, its requirements and their bounds."""

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

# Versions are bounded above where the next minor version of a 0.x library may
# break the package. `constraints.txt` is a full set that is known to work.

# For loading, verifying, using and exporting SAEs. `tests/core_test.py` limits
# the number and the size of the installed distributions.
_CORE = [
    # Has explicit mesh axis types; custom_vjp is tested with this version.
    'jax>=0.10.2,<0.11',
    'numpy>=2.0',
    # bfloat16 arrays of safetensors files, as NumPy arrays.
    'ml_dtypes>=0.5',
    # Matches latents across seeds; jax requires it too.
    'scipy>=1.13',
    # Reads published SAEs and the weights of the embedded language model.
    'safetensors>=0.5.3',
    # Flags and logging.
    'absl-py>=2.3',
    # Shapes in signatures.
    'jaxtyping>=0.3.2',
]

# For language models, training, evaluation and releases. If one of these is
# missing, the error of `jumprelu/extras.py` names this extra.
_TRAIN = [
    # The modules of gemma are Linen modules.
    'flax>=0.12.8,<0.13',
    # Trains the embedded language model; gemma and kauldron accept any version.
    'optax>=0.2.8,<0.3',
    # Checkpoints, written asynchronously.
    'orbax-checkpoint>=0.12.8,<0.13',
    # Paths of run directories, on disks and in buckets; orbax requires it too.
    'etils[epath]>=1.12',
    # Stored activations; orbax requires it too.
    'tensorstore>=0.1.74',
    # Their digests, faster than by zlib, which other platforms use.
    "isal>=1.7,<2; platform_machine in 'x86_64 AMD64 aarch64 arm64'",
    # Shuffles the rows of the token cache; another version could change the
    # order of the data.
    'grain>=0.2.18,<0.3',
    # Record files of the token cache.
    'array-record>=0.8.3,<0.9',
    # Text data sets by name; imported only for `--data=tfds:...`.
    'tensorflow-datasets>=4.9.9,<5',
    # gemma and kauldron import it; versions up to 2.20 refuse protobuf 6.
    'tensorflow>=2.21,<2.22',
    # The modules of Gemma 2 and 3. No other pair of versions of gemma and kauldron works
    # with jax 0.10.
    'gemma==3.3.0',
    'kauldron==1.4.2',
    # sentencepiece 0.2.3 needs protobuf 7, which xmanager, a requirement of
    # kauldron, excludes. Without these two bounds pip backtracks for more than
    # 15 minutes.
    'sentencepiece>=0.2.1,<0.2.3',
    'protobuf>=6.31,<7',
    # kubernetes (required by xmanager) requires 3 from version 37.0.2, but
    # google-cloud-bigquery excludes 3. pip before 24 cannot resolve that.
    'python-dateutil<3',
    # Parquet: results out, text in.
    'pyarrow>=18',
    # The frontier plot.
    'matplotlib>=3.9',
]

# Writes event files. TensorFlow, which can write them too, takes seconds to
# import.
_TENSORBOARD = ['tensorboardX>=2.6.2']

# The server of `jumprelu explore --serve`, which overrides a method of
# uvicorn's server.
_SERVE = ['starlette>=1.0,<2', 'uvicorn>=0.40,<0.55']

# Dequantises the tensors of GGUF files.
_GGUF = ['gguf>=0.19,<0.20']

# Extras contain the list `_TRAIN` instead of requiring `jumprelu[train]`, which
# pip could install from a package index instead of this checkout.
_EXTRAS = {
    'train': _TRAIN,
    # `jumprelu train --tensorboard`.
    'tensorboard': [*_TRAIN, *_TENSORBOARD],
    # `jumprelu explore --serve`.
    'serve': [*_TRAIN, *_SERVE],
    # `--model=FILE.gguf`.
    'gguf': [*_TRAIN, *_GGUF],
    'test': [
        *_TRAIN,
        *_TENSORBOARD,
        *_SERVE,
        *_GGUF,
        # Starlette's test client needs it.
        'httpx>=0.28',
        'pytest>=8.3',
        'pytest-xdist>=3.6',
        'pytest-timeout>=2.3',
        # Checks the shapes of `jaxtyping` in tests.
        'beartype>=0.20',
        # Shows the public objects in notebooks.
        'treescope>=0.1.10,<0.2',
        # Run docs/tutorial.ipynb.
        'nbclient>=0.10',
        'ipykernel>=6.29',
        # Validates the manifests of launch/ against their schema.
        'jsonschema>=4.23',
        # `test.sh`: lint, format and types.
        'ruff>=0.12',
        'pyink>=24.10',
        'basedpyright>=1.31',
    ],
    # Opens pages in Debian's Chromium (tests/browser).
    'browser': [
        *_TRAIN,
        'pytest>=8.3',
        'pytest-xdist>=3.6',
        'pytest-timeout>=2.3',
        'playwright>=1.49',
    ],
    # Runs other libraries, for comparison; the other tests compare with stored
    # results. SAEBench is left out because it requires an older NumPy
    # (experiments/goldens/make_metric_goldens.py).
    'interop': [
        *_TRAIN,
        *_GGUF,
        'torch>=2.6',
        'transformers>=5.23',
        # transformers reads GGUF files with it.
        'accelerate>=1.10',
        'sae-lens>=6.54,<7',
        # Read the files of `jumprelu features`.
        'polars>=1.30',
        'duckdb>=1.3',
    ],
    # Compiles for TPUs on a computer without TPUs (`jumprelu plan --compile`,
    # tests/tpu). This release belongs to the pinned jax.
    'tpu-compile': [*_TRAIN, 'libtpu==0.0.52'],
    'tpu': [*_TRAIN, 'jax[tpu]>=0.10.2,<0.11'],
    'cuda': [*_TRAIN, 'jax[cuda12]>=0.10.2,<0.11'],
}


def _native_step() -> list[setuptools.Extension]:
  """Returns the extension with the JumpReLU step in C++.

  The extension is optional, so that the package can be installed without a
  compiler. It uses XLA's headers, which are part of jaxlib, and not Python's.
  It is compiled for several instruction sets, and the best one is selected when
  it is loaded, so that a build also runs on other machines.
  """
  jaxlib = importlib.util.find_spec('jaxlib')
  if jaxlib is None or sys.platform == 'win32':
    return []
  headers = pathlib.Path(jaxlib.submodule_search_locations[0]) / 'include'
  folder = 'jumprelu/ops/native'
  return [
      setuptools.Extension(
          'jumprelu.ops.native._step',
          [
              f'{folder}/{name}.cc'
              for name in ('step', 'encode', 'integer_tiles', 'digest', 'ffi')
          ],
          depends=[
              f'{folder}/{name}.h'
              for name in ('step', 'encode', 'integer_tiles', 'digest', 'loops')
          ],
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
        'Training, evaluation and release of suites of JumpReLU sparse'
        ' autoencoders on Gemma 2 and 3, as in Gemma Scope'
    ),
    long_description=_README.read_text('utf-8') if _README.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=[
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
    ],
    python_requires='>=3.11',
    packages=setuptools.find_packages(include=['jumprelu', 'jumprelu.*']),
    package_data={
        'jumprelu.explore': ['static/*'],
        'jumprelu.lm': ['nano/*'],
        'jumprelu.ops.native': ['*.cc', '*.h'],
        'jumprelu.release.formats': ['gemma_scope_l0.json'],
    },
    install_requires=_CORE,
    extras_require=_EXTRAS,
    ext_modules=_native_step(),
    entry_points={'console_scripts': ['jumprelu = jumprelu.run.main:main']},
)
