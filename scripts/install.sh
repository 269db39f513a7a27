#!/bin/sh
# Install a lock file into a virtual environment, exactly as it stands: scripts/install.sh .venv/bin/python FILE
#
# A lock is complete, so nothing in it is resolved again: with dependency resolution, pip looks for a requirement with an
# extra (coverage[toml]) once more, finds a release newer than the pin, and refuses. uv installs it in seconds; it is
# the one on PATH, or a pinned wheel. Where uv cannot install (no wheel for this machine, an index that only pip's
# configuration names), pip does, in minutes.
set -eu
python=$1
lock=$2

pip_install() {
    "$python" -m pip --disable-pip-version-check --no-input install --quiet --no-deps --require-hashes -r "$1"
}

uv_install() {
    "$@" pip install --quiet --python "$python" --no-deps --require-hashes -r "$lock"
}

pinned=$(dirname "$0")/../requirements/uv.txt
if command -v uv >/dev/null 2>&1 && uv_install uv; then
    exit 0
fi
if { "$python" -m uv --version >/dev/null 2>&1 || pip_install "$pinned"; } && uv_install "$python" -m uv; then
    exit 0
fi
echo "uv could not install $lock: pip does it now, which takes some minutes" >&2
pip_install "$lock"
