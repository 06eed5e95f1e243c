#!/bin/sh
# Packs the parts of a slot into an update bundle for RAUC: format verity, signed, with the index that lets a box
# fetch only what it does not have.
#
# Usage: bundle.sh PARTS_DIR OUT.raucb
# Environment: KEYS (bundle.crt, bundle.key), SOURCE_DATE_EPOCH; RAUC, FAKETIME
# The images inside are the same for the same input; the bundle is not, as RAUC takes a new salt each time.
set -eu

parts=$1 out=$2
: "${KEYS:?}" "${SOURCE_DATE_EPOCH:?}"
RAUC=${RAUC:-rauc}
field() { sed -n "s/^  \"$1\": \"\\(.*\\)\",\$/\\1/p" "$parts/manifest.json"; }

work=$(mktemp -d "$(dirname "$out")/bundle.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/content"
ln "$parts/rootfs.img" "$work/content/rootfs.img" 2>/dev/null || cp "$parts/rootfs.img" "$work/content/rootfs.img"
# An image with an index is written in whole blocks.
cp "$parts/boot.efi" "$work/content/boot.img"
truncate -s %4096 "$work/content/boot.img"
cat > "$work/content/manifest.raucm" <<MANIFEST
[update]
compatible=$(field compatible)
version=$(field version)
build=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S)

[bundle]
format=verity

[image.rootfs]
filename=rootfs.img
adaptive=block-hash-index

[image.boot]
filename=boot.img
adaptive=block-hash-index
MANIFEST
rm -f "$out"
$RAUC bundle --cert="$KEYS/bundle.crt" --key="$KEYS/bundle.key" \
    --mksquashfs-args="-comp zstd -Xcompression-level 15 -b 128K -processors 2" "$work/content" "$out" >&2
