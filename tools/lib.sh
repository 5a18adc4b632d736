# Shared by the programs in tools/: where things are, how they speak, how they end. Sourced by bash, not run.
# shellcheck shell=bash

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
PY=$VENV/bin/python
TOOL=$(basename "$0")
export PYTHONUNBUFFERED=1

say() { printf '%s: %s\n' "$TOOL" "$*"; }
warn() { printf '%s: %s\n' "$TOOL" "$*" >&2; }
die() {
  warn "$*"
  exit 1
}

is_root() { [ "$(id -u)" = 0 ]; }

# usage: the comment at the head of the calling program
usage() {
  awk 'NR == 1 { next } /^# shellcheck/ || !/^#/ { exit } { sub(/^# ?/, ""); print }' "$0"
  exit 0
}

# seconds_since START: seconds with one decimal since START, which is a value of $EPOCHREALTIME
seconds_since() {
  local now=$EPOCHREALTIME
  local us=$((${now/[.,]/} - ${1/[.,]/}))
  printf '%d.%d' $((us / 1000000)) $((us % 1000000 / 100000))
}

# run_child COMMAND...: runs it and returns its status. On INT or TERM the child is asked to end as by Ctrl-C, so
# that it tears down what it set up, then told to, and after_interrupt is called; this program then ends with
# 128 + the signal.
child='' signalled=''
after_interrupt() { :; }
run_child() {
  local status=0
  trap 'signalled=2' INT
  trap 'signalled=15' TERM
  set -m # a process group of its own
  # SIGINT as it is by default: a background job of a script, as we or the child might be, has it ignored
  env --default-signal=INT "$@" </dev/null &
  child=$!
  set +m
  while kill -0 "$child" 2>/dev/null && [ -z "$signalled" ]; do wait "$child" && status=0 || status=$?; done
  if [ -n "$signalled" ]; then
    warn "interrupted; ending what was started"
    end_child INT 30 || end_child TERM 10 || kill -KILL -- "-$child" 2>/dev/null || true
    trap - INT TERM
    after_interrupt
    exit $((128 + signalled))
  fi
  trap - INT TERM
  child=''
  return "$status"
}

# end_child SIGNAL SECONDS: sends it to the child; true when it ended within that time
end_child() {
  local end=$((SECONDS + $2))
  kill "-$1" "$child" 2>/dev/null || return 0
  while kill -0 "$child" 2>/dev/null; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}
