#!/usr/bin/env bash
# One night: measure, store the numbers, then judge the series and write the site.
# nightly.sh SCENARIO FOLDER; COMMIT names the build. For cron or a systemd timer.
set -euo pipefail
scenario=$1
cd "$2"
run=runs/$(date -u +%Y%m%dT%H%M%SZ)-nightly
measured=0 judged=0
harness run "$scenario" --out "$run" --wait 2h --quiet ${COMMIT:+--label "commit=$COMMIT"} || measured=$?
# A night that violates a limit, or whose data is poor, is still a night.
if [ -f "$run/manifest.json" ]; then harness history add "$run"; fi
harness regress --html site || judged=$?
if [ "$judged" -ne 0 ]; then exit "$judged"; fi
exit "$measured"
