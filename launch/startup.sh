#!/usr/bin/env bash
# Runs a command again for as long as its exit code says that it may help.
#
#   startup.sh COMMAND [ARGUMENT ...]
#
# 0 ends it well; 2, 65, 66 and 70 end it at once; 42 (saved, asked to leave)
# starts it again; so does any other code, up to MAX_RESTARTS times, after a
# pause that doubles. SIGTERM is passed on, and what the command then says is
# this script's exit code.
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

say() { echo "startup: $*" >&2; }

restarts=0
pause=$first_pause
while true; do
  "$@" &
  child=$!
  # A signal may have come before there was anyone to pass it to.
  if [ -n "$leaving" ]; then leave; fi
  code=0
  wait "$child" || code=$?
  # A signal ends `wait` before the command: wait for it once more.
  while [ -n "$leaving" ] && kill -0 "$child" 2>/dev/null; do
    code=0
    wait "$child" || code=$?
  done
  child=
  case $code in
    0)
      say 'done'
      exit 0
      ;;
    2 | 65 | 66 | 70)
      say "exit code $code: the same again would end the same"
      exit "$code"
      ;;
  esac
  if [ -n "$leaving" ]; then
    say "asked to leave; exit code $code"
    exit "$code"
  fi
  if [ "$code" -eq 42 ]; then
    pause=$first_pause
    say "exit code 42: saved; again in $pause s"
    wait_for=$pause
  else
    if [ "$restarts" -ge "$max_restarts" ]; then
      say "exit code $code after $restarts restarts: giving up"
      exit "$code"
    fi
    restarts=$((restarts + 1))
    say "exit code $code: restart $restarts of $max_restarts in $pause s"
    wait_for=$pause
    pause=$((pause * 2 < longest_pause ? pause * 2 : longest_pause))
  fi
  # In seconds, so that a signal does not wait for the whole pause.
  for ((second = 0; second < wait_for; second++)); do
    if [ -n "$leaving" ]; then exit "$code"; fi
    sleep 1
  done
done
