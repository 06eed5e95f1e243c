#!/bin/sh
# From a root folder to what a slot holds: erofs with its dm-verity tree, and the signed unified kernel image that
# names its root hash.  The same input gives the same bytes.
#
# Usage: assemble.sh ROOT KERNEL INITRAMFS OUT_DIR
# Writes to OUT_DIR: rootfs.img, boot.efi, systemd-boot.efi, manifest.json
#
# Environment
#   VERSION, COMPATIBLE, BOARD   what the image is called; BOARD is <vendor>/<board>
#   KEYS                         folder with db.key and db.crt (keys.sh)
#   CMDLINE                      further words of the board's command line
#   SOURCE_DATE_EPOCH
#   STUB, BOOT_LOADER            systemd-stub and systemd-boot of the target (default: of this system)
#   MKFS_EROFS, VERITYSETUP, OBJCOPY, OBJDUMP, SBSIGN, FAKETIME   the tools, where they are not simply called so
#   EROFS_OPTIONS                default: see below
set -eu

root=$1 kernel=$2 initramfs=$3 out=$4
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=image/contract/layout.sh
. "$here/layout.sh"
: "${SOURCE_DATE_EPOCH:?}" "${VERSION:?}" "${COMPATIBLE:?}" "${BOARD:?}" "${KEYS:?}"
MKFS_EROFS=${MKFS_EROFS:-mkfs.erofs} VERITYSETUP=${VERITYSETUP:-veritysetup}
OBJCOPY=${OBJCOPY:-objcopy} OBJDUMP=${OBJDUMP:-objdump} SBSIGN=${SBSIGN:-sbsign} FAKETIME=${FAKETIME-faketime}
case ${ARCH:-$(uname -m)} in
aarch64) efi=aa64 ;;
*) efi=x64 ;;
esac
STUB=${STUB:-/usr/lib/systemd/boot/efi/linux$efi.efi.stub}
BOOT_LOADER=${BOOT_LOADER:-/usr/lib/systemd/boot/efi/systemd-boot$efi.efi}
# lz4hc: decompression is what a box waits for at its start.  64 KiB at a time is the best size for its pages.
EROFS_OPTIONS=${EROFS_OPTIONS:--zlz4hc,12 -C65536 -Eztailpacking}

say() { echo "assemble: $*" >&2; }
fail() { say "$*"; exit 1; }
# The signature's time is that of the image, so that the same input gives the same bytes.
sign() { # in, out
    set -- --key "$KEYS/db.key" --cert "$KEYS/db.crt" --output "$2" "$1"
    # shellcheck disable=SC2086  # lists of words
    if [ -n "$FAKETIME" ]; then $FAKETIME -f "@$(date -u -d "@$SOURCE_DATE_EPOCH" '+%Y-%m-%d %H:%M:%S')" $SBSIGN "$@"
    else $SBSIGN "$@"; fi 2>&1 | grep -v 'warning: \|Signing Unsigned original image\|data remaining' >&2 || true
}

mkdir -p "$out"
rootfs=$out/rootfs.img
rm -f "$rootfs"
# One time for all files, whenever the packages in a cache were unpacked: mkfs.erofs itself only lowers later ones.  An
# inode with the file system's own time is also a small one, in which an update of something else changes nothing.
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
# shellcheck disable=SC2086  # a list of words
$MKFS_EROFS --quiet -x1 -T "$SOURCE_DATE_EPOCH" -U "$UUID_rootfs" $EROFS_OPTIONS "$rootfs" "$root" >&2
erofs_bytes=$(stat -c %s "$rootfs")
blocks=$(( (erofs_bytes + 4095) / 4096 ))
truncate -s $(( blocks * 4096 )) "$rootfs"
# The salt only keeps trees of different products apart; that it stays is what keeps updates small.
salt=$(printf '%s' "$COMPATIBLE" | sha256sum | cut -c1-64)
hash=$($VERITYSETUP format --no-superblock --format=1 --hash=sha256 --salt="$salt" \
    --data-block-size=4096 --hash-block-size=4096 --data-blocks="$blocks" --hash-offset=$(( blocks * 4096 )) \
    "$rootfs" "$rootfs" | sed -n 's/^Root hash:[[:space:]]*//p')
[ ${#hash} = 64 ] || fail "veritysetup gave no root hash for $rootfs"
rootfs_bytes=$(stat -c %s "$rootfs")
[ "$rootfs_bytes" -le $(( LAYOUT_MIB_slot * 1048576 )) ] \
    || fail "the root has $rootfs_bytes bytes, a slot $(( LAYOUT_MIB_slot * 1048576 )); take packages out"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
    sed 's/#.*//' "$here/cmdline"
    printf '%s\n' "${CMDLINE:-}" "arint.version=$VERSION" "arint.root=$hash" "arint.verity=$blocks:$salt"
} | tr -s ' \t\n' ' ' | sed 's/^ //; s/ $//' > "$work/cmdline"
printf 'ID=arint\nNAME=ARINT\nPRETTY_NAME="ARINT %s"\nVERSION_ID=%s\nIMAGE_VERSION=%s\n' "$VERSION" "$VERSION" "$VERSION" > "$work/osrel"
printf '%s' "${KERNEL_RELEASE:-arint}" > "$work/uname"

# A PE section begins at a multiple of 4096; the large ones come last, so that a small change moves none.
align() { echo $(( ($1 + 4095) / 4096 * 4096 )); }
at=$($OBJDUMP -h "$STUB" | awk 'NF == 7 { size = $3; place = $4 } END { print place, size }')
place=$(( 0x${at% *} )) size=$(( 0x${at#* } ))
next=$(align $(( place + size )))
set --
for part in osrel cmdline uname linux initrd; do
    case $part in linux) file=$kernel ;; initrd) file=$initramfs ;; *) file=$work/$part ;; esac
    # Padded to whole blocks: the large sections then start at the same offset in each version.
    cp "$file" "$work/section-$part"
    case $part in
    cmdline|osrel|uname) truncate -s 4096 "$work/section-$part" ;;
    esac
    set -- "$@" --add-section ".$part=$work/section-$part" --change-section-vma ".$part=$(printf 0x%x "$next")" \
        --set-section-flags ".$part=alloc,contents,load,readonly,data"
    next=$(align $(( next + $(stat -c %s "$work/section-$part") )))
done
$OBJCOPY "$@" "$STUB" "$work/boot.efi"
sign "$work/boot.efi" "$out/boot.efi"
sign "$BOOT_LOADER" "$out/systemd-boot.efi"
for file in boot.efi systemd-boot.efi; do [ -s "$out/$file" ] || fail "sbsign made no $file"; done
boot_bytes=$(stat -c %s "$out/boot.efi")
[ "$boot_bytes" -le $(( LAYOUT_MIB_boot * 1048576 )) ] \
    || fail "the unified kernel image has $boot_bytes bytes, its partition $(( LAYOUT_MIB_boot * 1048576 )); take modules out"

cat > "$out/manifest.json" <<JSON
{
  "version": "$VERSION",
  "compatible": "$COMPATIBLE",
  "board": "$BOARD",
  "built": $SOURCE_DATE_EPOCH,
  "root_hash": "$hash",
  "salt": "$salt",
  "data_blocks": $blocks,
  "rootfs_bytes": $rootfs_bytes,
  "boot_bytes": $boot_bytes,
  "rootfs_sha256": "$(sha256sum "$rootfs" | cut -c1-64)",
  "boot_sha256": "$(sha256sum "$out/boot.efi" | cut -c1-64)",
  "cmdline": "$(cat "$work/cmdline")"
}
JSON
