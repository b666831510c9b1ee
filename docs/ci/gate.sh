#!/usr/bin/env bash
# Measure a scenario, compare it with a baseline if there is one, show the report, and end with the exit code.
# gate.sh SCENARIO OUT [BASELINE]
set -euo pipefail
scenario=$1 out=$2 baseline=${3-}
rc=0
harness run "$scenario" --out "$out" || rc=$?
if [ -f "$out/report.md" ]; then cat "$out/report.md"; fi
if [ "$rc" -eq 0 ] && [ -n "$baseline" ]; then
  harness compare "$baseline" "$out" --format md --out "$out" || rc=$?
fi
exit "$rc"
