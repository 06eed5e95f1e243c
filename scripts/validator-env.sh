#!/bin/sh
# Makes the Python environment of the validator of OpenAPI documents if it is missing or old, and prints the path of its
# interpreter.  It is apart from the environment of the workers, so that services see none of it.
# Usage: validator-env.sh
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
file=$here/tests/services/requirements-openapi.txt
base=$("$here/scripts/python-env.sh")

mark=$(cat "$file" "$0" | sha256sum | cut -c1-16)
env_dir=${XDG_CACHE_HOME:-$HOME/.cache}/arint/validator-$mark
if [ ! -e "$env_dir/ready" ]; then
    mkdir -p "$(dirname "$env_dir")"
    # Two callers at a time must not build the same folder.
    exec 9>"$env_dir.lock"
    flock 9
    if [ ! -e "$env_dir/ready" ]; then
        rm -rf "$env_dir"
        "$base" -m venv "$env_dir" >&2
        "$env_dir/bin/pip" install --quiet --requirement "$file" >&2
        touch "$env_dir/ready"
    fi
fi
echo "$env_dir/bin/python"
