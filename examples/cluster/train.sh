#!/usr/bin/env bash
# Runs a run file on one machine and ends with the run's own exit status.
#
#   examples/cluster/train.sh RUN.yaml [PROCESSES]
#
# torchrun answers SIGTERM and every failure of a rank with status 1, which otherwise means that a
# verdict is no. What the run says beside its workspace tells them apart: 0 PASS, 1 another verdict,
# 2 refused, 70 a bug, 143 stopped and to be started again. A run that was killed leaves no last
# word: 137, and to be started again as well.
set -euo pipefail

run=${1:?usage: train.sh RUN.yaml [PROCESSES]}
processes=${2:-1}
child= stopped=
trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM
workspace=$(python -c 'import sys
from dpmlm.config import load_config
from dpmlm.errors import UserError
try:
    print(load_config(sys.argv[1]).workspace)
except UserError as error:
    sys.exit(f"error: {error}")' "$run") || exit 2
rm -f "$workspace.status.json"  # of an earlier start

if [ "$processes" -gt 1 ]; then
  command=(torchrun --nproc-per-node="$processes" --no-python "$(command -v dpmlm)" run "$run")
else
  command=(dpmlm run "$run")
fi
[ -z "$stopped" ] || exit 143  # before there was anything to stop
"${command[@]}" &
child=$!
[ -z "$stopped" ] || kill -TERM "$child" 2>/dev/null || true
status=0
wait "$child" || status=$?
while kill -0 "$child" 2>/dev/null; do  # a signal ends `wait`, and not what it waits for
  status=0
  wait "$child" || status=$?
done

if [ ! -f "$workspace.status.json" ]; then
  # Without a word of the run, torchrun's 1 is that of a rank that died early, and no verdict.
  [ "$processes" -gt 1 ] && [ "$status" = 1 ] && status=137
  exit "$status"
fi
exit "$(python -c 'import json, sys
told = json.load(open(sys.argv[1]))["status"]
print(137 if told is None else told)' "$workspace.status.json")"
