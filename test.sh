#!/usr/bin/env bash
# Set up on a bare machine with Python >= 3.10, then check style and run all tests, one process per core (at most 4).
# Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$root"
set_up
"$python" -m ruff check .
"$python" -m ruff format --check .
exec "$python" -m pytest -n auto --maxprocesses 4 "$@"
