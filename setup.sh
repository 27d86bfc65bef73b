# Sourced by run.sh and test.sh: make .venv beside this file and install requirements.txt into it, once.
# PYTHON chooses the interpreter (default: python3).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv="$root/.venv"
python="$venv/bin/python"

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

set_up() {
    local stamp="$venv/installed" wanted interpreter="${PYTHON:-python3}" log="$venv/install.log"
    wanted=$(cksum <"$root/requirements.txt")
    [ -x "$python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return

    "$interpreter" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        fail "Python >= 3.10 is needed: $interpreter is not; name another with PYTHON=/path/to/python3"
    echo "→ setting up .venv (once; PyTorch is a large download): pip install -r requirements.txt"
    [ -x "$python" ] || "$interpreter" -m venv "$venv" ||
        fail "python -m venv failed (on Debian or Ubuntu: apt-get install python3-venv)"
    "$python" -m pip install --disable-pip-version-check -r "$root/requirements.txt" >"$log" 2>&1 ||
        fail "$(tail -n 5 "$log")
installation failed; the whole log is $log"
    # adv-lib needs visdom, whose last release for Python < 3.12 builds only with setuptools < 81. Older pips hand
    # PIP_CONSTRAINT on to the build, newer ones PIP_BUILD_CONSTRAINT. Torch is there already, so it is not touched.
    if "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then
        echo 'setuptools<81' >"$venv/build-constraints.txt"
        PIP_CONSTRAINT="$venv/build-constraints.txt" PIP_BUILD_CONSTRAINT="$venv/build-constraints.txt" \
            "$python" -m pip install --disable-pip-version-check 'adv-lib>=0.2.8' >>"$log" 2>&1 ||
            fail "$(tail -n 5 "$log")
installation of adv-lib failed; the whole log is $log"
    fi
    echo "$wanted" >"$stamp"
    echo "✓ $("$python" --version) with torch $("$python" -c 'import torch; print(torch.__version__)') in .venv"
}
