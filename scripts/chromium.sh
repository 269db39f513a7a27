#!/bin/sh
# Print where a Chromium or Chrome is: the one that CHROMIUM names, one on PATH, or one that Playwright brought.
# Where there is none, and with --install: bring one, by apt as root on Debian, else by the Playwright of .venv.
set -u

find_it() {
    if [ -n "${CHROMIUM:-}" ]; then
        [ -x "$CHROMIUM" ] && printf '%s\n' "$CHROMIUM"
        return
    fi
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        command -v "$name" && return
    done
    for file in "${PLAYWRIGHT_BROWSERS_PATH:-$HOME/.cache/ms-playwright}"/chromium*/chrome-*/chrome* \
        "${PLAYWRIGHT_BROWSERS_PATH:-$HOME/.cache/ms-playwright}"/chromium*/chrome-*/headless_shell; do
        [ -x "$file" ] && [ -f "$file" ] && "$file" --version >/dev/null 2>&1 && printf '%s\n' "$file" && return
    done
    return 1
}

find_it && exit 0
[ "${1:-}" = --install ] && [ -z "${CHROMIUM:-}" ] || exit 1
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get -o Acquire::http::Timeout=20 -o Acquire::Retries=1 update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get -o Acquire::http::Timeout=20 install -y -qq --no-install-recommends chromium fonts-liberation; } >/dev/null 2>&1 && find_it && exit 0
fi
PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT=15000 .venv/bin/python -m playwright install chromium-headless-shell >/dev/null 2>&1
find_it
