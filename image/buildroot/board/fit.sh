#!/bin/sh
# Packs kernel, first stage and command line into the image that U-Boot starts; called by image/contract/assemble.sh.
# Usage: fit.sh KERNEL INITRAMFS COMMAND_LINE OUT
set -eu
kernel=$(realpath "$1") initramfs=$(realpath "$2") arguments=$3 out=$4
: "${VERSION:?}" "${SOURCE_DATE_EPOCH:?}"
top=$(cd "$(dirname "$0")/../../.." && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
printf 'setenv bootargs "%s"\n' "$(cat "$arguments")" > "$work/arguments"
sed "s|@VERSION@|$VERSION|; s|@EPOCH@|$SOURCE_DATE_EPOCH|; s|@KERNEL@|$kernel|; s|@INITRD@|$initramfs|; s|@ARGUMENTS@|$work/arguments|" \
    "$top/hw/raspberrypi/slot.its.in" > "$work/slot.its"
mkimage -f "$work/slot.its" "$out" > /dev/null
