#!/bin/sh
# Third-party readers, one environment per list beside this file, under .venv-consumers/.
# Usage: tests/consumers/install.sh [python]
set -eu
cd "$(dirname "$0")/../.."
python=${1:-python3}
for list in tests/consumers/*.txt; do
    venv=.venv-consumers/$(basename "$list" .txt)
    if [ -f "$venv/.installed" ] && cmp -s "$list" "$venv/.installed"; then
        continue
    fi
    echo "Installing $list into $venv"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$list"
    cp "$list" "$venv/.installed"
done
