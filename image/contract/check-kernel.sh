#!/bin/sh
# Fails when a kernel option that we ask for did not take effect: a fragment's line is a wish, and the kernel's own
# rules drop it without a word.
#
# Usage: check-kernel.sh CONFIG [WANTED…]
#   CONFIG  the kernel's final .config
#   WANTED  lists like kernel.config, which is always read: `=y` means built in, `=m` a module or built in, `=n` or
#           `# … is not set` absent, any other value exactly that
set -eu
config=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
[ -r "$config" ] || { echo "check-kernel: cannot read $config; it is the .config of a built kernel" >&2; exit 2; }
awk -v config="$config" '
    BEGIN { while ((getline line < config) > 0) if (line ~ /^CONFIG_[A-Za-z0-9_]+=/) { at = index(line, "="); got[substr(line, 1, at - 1)] = substr(line, at + 1) } }
    /^# CONFIG_[A-Za-z0-9_]+ is not set/ { name = $2; want = "n" }
    /^CONFIG_[A-Za-z0-9_]+=/ { at = index($0, "="); name = substr($0, 1, at - 1); want = substr($0, at + 1); sub(/[ \t]*#.*$/, "", want) }
    name == "" { next }
    {
        have = (name in got) ? got[name] : "n"
        good = have == want || (want == "m" && have == "y")
        if (!good) { printf "check-kernel: %s asks for %s=%s, the kernel has %s\n", FILENAME, name, want, have > "/dev/stderr"; bad = 1 }
        checked++; name = ""
    }
    END { if (!checked) { print "check-kernel: no option is asked for" > "/dev/stderr"; exit 2 } exit bad }
' "$here/kernel.config" "$@"
