#!/bin/sh
# Prints the path of a Chromium or Chrome for the browser tests, and gets one if there is none.
#
# In order: CHROMIUM, if set; a browser on PATH; one that playwright has fetched before; as root on Debian, the
# distribution's package; playwright's own download, which needs no root.
set -eu

python=.venv/bin/python

runs() {
    [ -n "$1" ] && "$1" --version >/dev/null 2>&1
}

on_path() {
    for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
        found=$(command -v "$name" || true)
        if runs "$found"; then
            printf '%s\n' "$found"
            return
        fi
    done
    return 1
}

of_playwright() {
    found=$("$python" -c '
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)' 2>/dev/null || true)
    runs "$found" && printf '%s\n' "$found"
}

from_debian() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && grep -qs '^ID=debian' /etc/os-release || return 1
    echo "Installing Debian's chromium for the browser tests" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } >/dev/null 2>&1
}

from_playwright() {
    echo "Fetching a Chromium for the browser tests" >&2
    "$python" -m playwright install --only-shell chromium >/dev/null 2>&1
}

if [ -n "${CHROMIUM:-}" ]; then
    runs "$CHROMIUM" && printf '%s\n' "$CHROMIUM" && exit
    echo "CHROMIUM=$CHROMIUM is not a Chromium or Chrome that runs here." >&2
    exit 1
fi
on_path || of_playwright || { from_debian && on_path; } || { from_playwright && of_playwright; } || {
    echo "The browser tests need a Chromium or Chrome, and none was found or could be installed: install one," \
        "or name it with CHROMIUM=/path/to/chromium. The other tests do without:" \
        "make test ARGS='--ignore tests/integration/browser'" >&2
    exit 1
}
