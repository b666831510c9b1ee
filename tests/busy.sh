#!/usr/bin/env bash
# Run a command several times with two busy loops beside it: busy.sh TIMES COMMAND...
set -u
times=$1
shift
busy=()
for _ in 1 2; do
  (while :; do :; done) &
  busy+=($!)
done
trap 'kill "${busy[@]}" 2>/dev/null' EXIT
failed=0
for ((round = 1; round <= times; round++)); do
  echo "round $round of $times"
  "$@" || failed=$((failed + 1))
done
echo "$failed of $times rounds failed"
exit $((failed > 0))
