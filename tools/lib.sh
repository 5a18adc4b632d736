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

# seconds_since START: seconds with one decimal since START, which is a value of $EPOCHREALTIME
seconds_since() {
  local now=$EPOCHREALTIME
  local us=$((${now/[.,]/} - ${1/[.,]/}))
  printf '%d.%d' $((us / 1000000)) $((us % 1000000 / 100000))
}
