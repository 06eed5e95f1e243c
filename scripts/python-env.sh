#!/bin/sh
# Makes the Python environment of the workers (and of the SDK's tests) if it is missing or old, and
# prints the path of its interpreter.  Usage: python-env.sh
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
sdk=$here/appliance/arsrv/sdk

cache_dir() {
    # Workers may run as a user of their own; root's home is closed to them.
    if [ "$(id -u)" = 0 ]; then echo /var/cache/arint
    else echo "${XDG_CACHE_HOME:-$HOME/.cache}/arint"; fi
}

is_fit() { # interpreter
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in /usr/bin/python3 /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11 python3 python3.13 python3.12 python3.11; do
        path=$(command -v "$candidate" 2>/dev/null) || continue
        if is_fit "$path"; then echo "$path"; return; fi
    done
    echo "no Python 3.11 or newer with venv was found; install the Debian package python3-venv" >&2
    exit 1
}

python=${ARINT_BASE_PYTHON:-$(find_python)}
set -- "$sdk"/requirements*.txt
mark=$(cat "$@" | cat - "$0" | sha256sum | cut -c1-16)-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
env_dir=$(cache_dir)/python-$mark
if [ ! -e "$env_dir/ready" ]; then
    mkdir -p "$(cache_dir)"
    # Two callers at a time must not build the same folder.
    exec 9>"$(cache_dir)/python.lock"
    flock 9
    if [ ! -e "$env_dir/ready" ]; then
        rm -rf "$env_dir"
        "$python" -m venv "$env_dir" >&2
        # At one time: what one of them needs may stand in the other.
        for file do shift; set -- "$@" --requirement "$file"; done
        "$env_dir/bin/pip" install --quiet "$@" >&2
        touch "$env_dir/ready"
    fi
fi
echo "$env_dir/bin/python"
