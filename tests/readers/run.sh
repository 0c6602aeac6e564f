#!/usr/bin/env bash
# Installs the readers below WORK, and runs tests/readers in them:
#   bash tests/readers/run.sh WORK DEMO
# DEMO is the output of `jumprelu demo`; `python` must have the extra `train`.
# There are two environments, because circuit-tracer requires older libraries
# than SAELens. The second one sees the packages of the first.
set -eu
work=$1
export JUMPRELU_DEMO=$2 JUMPRELU_READERS=$work/made

purelib() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

start=$SECONDS
timed() {
  echo "readers: $1 after $((SECONDS - start)) s"
  start=$SECONDS
}

python -m tests.readers.make --demo="$JUMPRELU_DEMO" --out="$JUMPRELU_READERS"
timed 'files'

here=tests/readers
for name in readers tracer; do
  "${PYTHON:-python3}" -m venv "$work/$name"
done
"$work/readers/bin/pip" install -q . -r $here/requirements.txt
# pip prints the requirements of these that are not met, and exits with 0.
"$work/readers/bin/pip" install -q --no-deps -r $here/tools.txt
purelib "$work/readers" > "$(purelib "$work/tracer")/readers.pth"
"$work/tracer/bin/pip" install -q --no-deps --ignore-installed -r $here/tracer.txt
timed "environments of $(du -shc "$work/readers" "$work/tracer" | tail -n 1 | cut -f 1)"

"$work/readers/bin/python" -m pytest -q -n0 -m readers --durations=5 \
  --ignore=$here/circuit_tracer_test.py $here
"$work/tracer/bin/python" -m pytest -q -n0 -m readers $here/circuit_tracer_test.py
timed 'tests'
