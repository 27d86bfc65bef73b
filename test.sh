#!/usr/bin/env bash
# Set up on a bare machine with Python >= 3.10, then check style and types and run all tests, one process per core (at
# most 4).
# Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$root"
set_up
"$python" -m ruff check .
"$python" -m ruff format --check .
report="$(mktemp)"
trap 'rm -f "$report"' EXIT
"$python" -m mypy > "$report" 2>&1 &  # beside the tests: seconds, once it has seen the files
types=$!
failed=0
"$python" -m pytest -n auto --maxprocesses 4 "$@" || failed=$?
wait "$types" || failed=1
echo "mypy: $(cat "$report")"
exit "$failed"
