#!/bin/sh
# Makes the virtual environment of the Makefile: .venv with requirements.lock in it and the project, editable.
#
# A .venv that an earlier run left half-made, or whose Python is gone, is made anew. One that is whole is only
# brought up to date. PYTHON, if set, names the interpreter to use; else the first of the usual names that fits.
set -eu

venv=.venv
unfinished=$venv/.unfinished

fits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

makes_venvs() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

find_python() {
    without_venv=
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.14 python; do
        if fits "$candidate"; then
            if makes_venvs "$candidate"; then
                printf '%s\n' "$candidate"
                return
            fi
            without_venv=$candidate
        fi
        if [ -n "${PYTHON:-}" ]; then
            break
        fi
    done
    if [ -n "$without_venv" ]; then
        echo "$without_venv cannot make virtual environments: install its venv module" \
            "(on Debian and Ubuntu: apt-get install python3-venv) and run make again." >&2
    elif [ -n "${PYTHON:-}" ]; then
        echo "PYTHON=$PYTHON is not a Python 3.11 or newer." >&2
    else
        echo "No Python 3.11 or newer was found on PATH. Install one, or name it:" \
            "make PYTHON=/path/to/python3.11 ..." >&2
    fi
    return 1
}

if [ -e "$unfinished" ] || ! fits "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making $venv with $("$python" --version)"
    rm -rf "$venv"
    mkdir "$venv"
    touch "$unfinished"
    "$python" -m venv "$venv"
fi

touch "$unfinished"
echo "Installing requirements.lock into $venv (minutes, the first time)"
"$venv/bin/python" -m pip install -qq --requirement requirements.lock
"$venv/bin/python" -m pip install -qq --no-deps --no-build-isolation --editable .
rm "$unfinished"
