#!/usr/bin/env bash
# Set up on a bare machine with Python >= 3.10, then check style and types and run all tests, one process per core (at
# most 4). --coverage also reports which lines no test runs. All other arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$root"
coverage=0 arguments=()
for argument in "$@"; do
    case "$argument" in --coverage) coverage=1 ;; *) arguments+=("$argument") ;; esac
done
set_up
set_up_models
# What the tests in a browser need, as far as it can be had here, once; what is missing they name and skip. To try again:
# rm -r .venv/browser
if [ ! -d "$venv/browser" ]; then
    echo '→ for the tests in a browser: Playwright by pip, axe-core by npm, Chromium by apt-get (only as root)'
    mkdir -p "$venv/browser"
    {
        "$python" -m pip install --disable-pip-version-check 'playwright>=1.40' || true
        npm install --prefix "$venv/browser" --no-audit --no-fund --fetch-retries=1 --fetch-timeout=20000 axe-core@4 || true
        if [ "$(id -u)" = 0 ] && ! command -v chromium chromium-browser google-chrome >/dev/null; then
            apt-get -o Acquire::http::Timeout=20 update && apt-get -o Acquire::http::Timeout=20 install -y --no-install-recommends chromium || true
        fi
    } >"$venv/browser/install.log" 2>&1
fi
"$python" -m ruff check .
"$python" -m ruff format --check .
if [ "$coverage" = 1 ]; then
    # Scripts that tests start as processes of their own, in other folders, count too: hence absolute paths.
    mkdir -p "$venv/coverage"
    cat >"$venv/covered.ini" <<END
[run]
source = $root
omit =
    $root/tests/*
    $root/results/*
    $root/runs/*
patch = subprocess
parallel = true
data_file = $venv/coverage/data
END
    arguments+=(--cov --cov-config="$venv/covered.ini" --cov-report=term-missing:skip-covered)
fi
report="$(mktemp)"
trap 'rm -f "$report"' EXIT
"$python" -m mypy > "$report" 2>&1 &  # beside the tests: it takes seconds once it has seen the files
types=$! failed=0
"$python" -m pytest -n auto --maxprocesses 4 ${arguments[@]+"${arguments[@]}"} || failed=$?
wait "$types" || failed=1
echo "mypy: $(cat "$report")"
exit "$failed"
