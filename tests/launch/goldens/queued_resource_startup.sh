#!/usr/bin/env bash
gcloud auth configure-docker europe-docker.pkg.dev --quiet
HF_TOKEN="$(gcloud secrets versions access 3 --secret=hf)"
export HF_TOKEN
export MAX_RESTARTS=50
set -- docker run --rm --network=host --privileged --ulimit=memlock=-1 --stop-timeout=300 --volume=/var/cache/jumprelu:/cache --env=JAX_COORDINATOR_PORT=8476 --env=JUMPRELU_CACHE=/cache '--env=XLA_FLAGS=--xla_a=1 --xla_b=2' --env=HF_TOKEN europe-docker.pkg.dev/p/r/jumprelu@sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a -m jumprelu.run.main train --out=gs://my-bucket/runs/scope-2b/layer_12 --layer=12 --model=gemma2_2b --sites=resid_post,mlp_out,attn_heads --recipe=paper --widths=16384,65536 --sparsity_coefficients=resid_post:1e-3+3e-3,2e-3

# Runs a command and restarts it while its exit code allows a retry.
#
#   startup.sh COMMAND [ARGUMENT ...]
#
# If the command exits with 0, 2, 65, 66 or 70, so does the script. 42
# (preempted, checkpoint saved) always restarts the command. Any other code
# restarts it up to MAX_RESTARTS times, after a pause that doubles each time.
# SIGTERM is forwarded to the command, and the script then exits with the
# command's exit code.
set -u
max_restarts=${MAX_RESTARTS:-8}
first_pause=${PAUSE_SECONDS:-10}
longest_pause=${MAX_PAUSE_SECONDS:-600}

child=
leaving=
leave() {
  leaving=1
  if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; fi
}
trap leave TERM INT

log() { echo "startup: $*" >&2; }

restarts=0
pause=$first_pause
while true; do
  "$@" &
  child=$!
  # A signal may have arrived before the command was started.
  if [ -n "$leaving" ]; then leave; fi
  code=0
  wait "$child" || code=$?
  # A signal ends `wait` before the command has ended, so wait again.
  while [ -n "$leaving" ] && kill -0 "$child" 2>/dev/null; do
    code=0
    wait "$child" || code=$?
  done
  child=
  case $code in
    0)
      log 'done'
      exit 0
      ;;
    2 | 65 | 66 | 70)
      log "exit code $code: a retry would fail in the same way"
      exit "$code"
      ;;
  esac
  if [ -n "$leaving" ]; then
    log "stopped by a signal; exit code $code"
    exit "$code"
  fi
  if [ "$code" -eq 42 ]; then
    pause=$first_pause
    log "exit code 42: checkpoint saved; restart in $pause s"
    wait_for=$pause
  else
    if [ "$restarts" -ge "$max_restarts" ]; then
      log "exit code $code after $restarts restarts: giving up"
      exit "$code"
    fi
    restarts=$((restarts + 1))
    log "exit code $code: restart $restarts of $max_restarts in $pause s"
    wait_for=$pause
    pause=$((pause * 2 < longest_pause ? pause * 2 : longest_pause))
  fi
  # Sleeps in steps of a second, so that a signal ends the pause early.
  for ((second = 0; second < wait_for; second++)); do
    if [ -n "$leaving" ]; then exit "$code"; fi
    sleep 1
  done
done
