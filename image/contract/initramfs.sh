#!/bin/sh
# Makes the RAM file system of the first stage: arinit as /init, the kernel modules it needs, nothing else.
# The same input gives the same bytes.
#
# Usage: initramfs.sh ARINIT MODULES_DIR OUT
#   ARINIT       the static first stage
#   MODULES_DIR  /lib/modules/<release> of the kernel, with modules.dep; or `-` where everything is built in
# Environment: SOURCE_DATE_EPOCH; FIRST_STAGE (default: the stub's own place), a list like modules.first; CPIO, ZSTD, XZ
set -eu

arinit=$1 modules=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
list=${FIRST_STAGE:-$here/modules.first}
: "${SOURCE_DATE_EPOCH:?must be set: the image must not depend on the time it is built at}"
CPIO=${CPIO:-cpio} ZSTD=${ZSTD:-zstd} XZ=${XZ:-xz}

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/dev" "$tree/proc" "$tree/sys" "$tree/run" "$tree/sysroot" "$tree/etc" "$tree/lib/modules"
cp "$arinit" "$tree/init"
chmod 0755 "$tree/init"

# Prints a module's file and, before it, the files it depends on, from modules.dep.
order() {
    awk -v wanted="$2" '
        function plain(path) { sub(/.*\//, "", path); sub(/\.ko(\..*)?$/, "", path); gsub(/-/, "_", path); return path }
        function add(path,   i, n, parts) {
            if (path in done) return
            done[path] = 1
            n = split(needs[path], parts, " ")
            for (i = n; i >= 1; i--) add(parts[i])
            print path
        }
        { path = $1; sub(/:$/, "", path); needs[path] = ""; for (i = 2; i <= NF; i++) needs[path] = needs[path] " " $i
          file[plain(path)] = path }
        END { n = split(wanted, names, " "); for (i = 1; i <= n; i++) if (names[i] in file) add(file[names[i]]) }
    ' "$1/modules.dep"
}

: > "$tree/etc/arinit.modules"
[ "$modules" = - ] || for step in start disk esp; do
    wanted=$(sed -n "s/#.*//; s/^$step  *//p" "$list" | tr '\n-' ' _')
    order "$modules" "$wanted" | while read -r path; do
        name=$(basename "$path"); name=${name%.xz}; name=${name%.zst}; name=${name%.gz}
        case $path in
        *.xz) $XZ -dc "$modules/$path" ;;
        *.zst) $ZSTD -qdc "$modules/$path" ;;
        *.gz) gzip -dc "$modules/$path" ;;
        *) cat "$modules/$path" ;;
        esac > "$tree/lib/modules/$name"
        echo "$step /lib/modules/$name" >> "$tree/etc/arinit.modules"
    done
done

find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
# --reproducible takes inode and device numbers out; modes do not depend on the caller's umask.
find "$tree" -type d -exec chmod 0755 {} +
find "$tree/etc" "$tree/lib/modules" -type f -exec chmod 0644 {} +
(cd "$tree" && find . -mindepth 1 | LC_ALL=C sort | $CPIO --quiet --reproducible -o -H newc -R 0:0) | $ZSTD -q -19 -f -o "$out"
