#!/usr/bin/env bash
# Usage: bash test.sh checks               lint, format, types
#        bash test.sh [PYTEST_ARGUMENT...]  the checks, then the tests
# Needs the extra `test`: pip install '.[test]'
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}

# Listed by name because an unpacked source archive may also contain build/.
sources=()
for source in setup.py jumprelu experiments launch tests; do
  [ -e "$source" ] && sources+=("$source")
done

echo '== lint'
"$python" -m ruff check "${sources[@]}"
echo '== format'
"$python" -m pyink --quiet --check "${sources[@]}"
echo '== types'
"$python" -m basedpyright --pythonpath "$(command -v "$python")"
[ "${1:-}" = checks ] && exit 0

# -P: tests import the installed package, not the checkout.
echo '== layers'
"$python" -P -m pytest -q tests/layering_test.py
echo '== tests'
"$python" -P -m pytest -q "$@"
