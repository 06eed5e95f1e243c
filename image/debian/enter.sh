#!/bin/sh
# Enters the tools' tree in a mount name space of its own and runs inside.sh there; only `build` calls this.
# Usage: enter.sh CACHE TOOLS CHECKOUT OUT KEYS WORDS…
set -eu
cache=$1 tools=$2 top=$3 out=$4 keys=$5
shift 5

if [ ! -e "$tools/ready" ]; then
    rm -rf "$tools"
    mkdir -p "$tools"
    # Devices cannot be made in a user name space; the machine's are mounted instead.
    tar -x -f "$tools.tar" -C "$tools" --exclude='./dev/*' --numeric-owner
    mkdir -p "$tools/arint" "$tools/cache" "$tools/out" "$tools/keys"
    touch "$tools/ready"
fi
mount --bind "$tools" "$tools"
for device in null zero full random urandom; do
    touch "$tools/dev/$device"
    mount --bind "/dev/$device" "$tools/dev/$device"
done
mkdir -p "$tools/dev/shm"
mount -t tmpfs tmpfs "$tools/dev/shm"
mount -t tmpfs tmpfs "$tools/tmp"
mount --rbind /proc "$tools/proc"
mount --bind "$top" "$tools/arint"
mount --bind "$cache" "$tools/cache"
mount --bind "$out" "$tools/out"
mount --bind "$keys" "$tools/keys"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8 TZ=UTC PYTHONHASHSEED=0 \
    SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" ARINT_VERSION="$ARINT_VERSION" ARINT_BOARD="$ARINT_BOARD" ARINT_ONLY="$ARINT_ONLY" \
    ARINT_BASE="$ARINT_BASE" ARINT_PACKED="$ARINT_PACKED" ARINT_WHEELS="$ARINT_WHEELS" \
    chroot "$tools" /bin/sh /arint/image/debian/inside.sh "$@"
