#!/usr/bin/env bash
# Usage: bash test.sh checks               lint, format, types
#        bash test.sh [pytest's arguments]  those, then the tests
# Needs an installation with the extra `test`: pip install '.[test]'
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-python3}

# Named one by one: an unpacked source may hold build/ and the like beside them.
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

# -P: what is installed is tested, not what happens to lie here.
echo '== layers'
"$python" -P -m pytest -q tests/layering_test.py
echo '== tests'
"$python" -P -m pytest -q "$@"
