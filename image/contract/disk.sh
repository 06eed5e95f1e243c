#!/bin/sh
# From the parts of a slot to a disk image that can be flashed: partitions, boot loader, first entry, slot A filled.
# No root, no loop device; the same input gives the same bytes.
#
# Usage: disk.sh [--installer] PARTS_DIR OUT_DIR
#   PARTS_DIR  what assemble.sh wrote
# Writes to OUT_DIR: image.img (sparse), image.img.zst, image.img.bmap, SHA256SUMS
# (with --installer: installer.img …; its first entry writes the system to the internal disk)
# Environment: SOURCE_DATE_EPOCH, KEYS; ESP_FILES, a folder of further files for the ESP; SFDISK, MKFS_VFAT, MCOPY, MMD, ZSTD, PYTHON3
set -eu

name=image
if [ "$1" = --installer ]; then name=installer; shift; fi
parts=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=image/contract/layout.sh
. "$here/layout.sh"
# shellcheck disable=SC2034  # read by eval
[ $name = image ] || { UUID_disk=$UUID_installer_disk UUID_esp=$UUID_installer_esp; }
: "${SOURCE_DATE_EPOCH:?}" "${KEYS:?}"
SFDISK=${SFDISK:-sfdisk} MKFS_VFAT=${MKFS_VFAT:-mkfs.vfat} MCOPY=${MCOPY:-mcopy} MMD=${MMD:-mmd}
ZSTD=${ZSTD:-zstd} PYTHON3=${PYTHON3:-python3}
export TZ=UTC MTOOLS_SKIP_CHECK=1
version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' "$parts/manifest.json")

mkdir -p "$out"
work=$(mktemp -d "$out/disk.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The ESP.
esp=$work/esp.img
truncate -s "${LAYOUT_MIB_esp}M" "$esp"
$MKFS_VFAT --invariant -F 32 -s 2 -i "$VOLUME_esp" -n ESP "$esp" > /dev/null
mkdir -p "$work/esp/EFI/BOOT" "$work/esp/EFI/arint" "$work/esp/loader/entries" "$work/esp/loader/keys/arint"
case ${ARCH:-$(uname -m)} in
aarch64) boot=BOOTAA64.EFI ;;
*) boot=BOOTX64.EFI ;;
esac
cp "$parts/systemd-boot.efi" "$work/esp/EFI/BOOT/$boot"
cp "$parts/boot.efi" "$work/esp/EFI/arint/a-000001.efi"
cp "$parts/boot.efi" "$work/esp/EFI/arint/recovery-000000.efi"
cat > "$work/esp/loader/loader.conf" <<'CONF'
timeout 0
editor no
auto-entries no
auto-firmware no
CONF
# Firmware that falls through to the EFI shell, as QEMU's does, starts again.
printf 'reset\r\n' > "$work/esp/startup.nsh"
# As arboot writes them (docs/image.md, "Generations and entries").
entry() { # name, title, version, image
    printf 'title %s\nsort-key arint\nversion %s-%s\nefi /EFI/arint/%s\n' "$2" "$3" "$version" "$4" \
        > "$work/esp/loader/entries/$1.conf"
}
entry arint-000001-a+3 "ARINT $version (a)" 000001 a-000001.efi
entry arint-000000-recovery "ARINT $version (recovery)" 000000 recovery-000000.efi
# Before the others: arinit knows by the entry's name what to do.
[ $name = image ] || entry arint-000002-install "Install ARINT $version" 000002 a-000001.efi
for key in PK KEK db; do cp "$KEYS/$key.auth" "$work/esp/loader/keys/arint/$key.auth"; done
[ -z "${ESP_FILES:-}" ] || cp -r "$ESP_FILES/." "$work/esp/"
find "$work/esp" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$work/esp" && find . -mindepth 1 -type d | LC_ALL=C sort | while read -r dir; do $MMD -i "$esp" "::${dir#.}"; done
    find . -type f | LC_ALL=C sort | while read -r file; do $MCOPY -m -i "$esp" "$file" "::${file#.}"; done)

# The table.
mib() { # partition
    case $1 in
    boot-*) echo "$LAYOUT_MIB_boot" ;;
    slot-*) echo "$LAYOUT_MIB_slot" ;;
    *) eval "echo \"\$LAYOUT_MIB_$1\"" ;;
    esac
}
at=1
{
    printf 'label: gpt\nlabel-id: %s\nunit: sectors\nfirst-lba: 2048\n' "$UUID_disk"
    for part in $LAYOUT_PARTITIONS; do
        size=$(mib "$part")
        eval "type=\$TYPE_${part%%-*} uuid=\$UUID_$(echo "$part" | tr - _)"
        # shellcheck disable=SC2154  # set by eval
        printf 'start=%s, size=%s, type=%s, uuid=%s, name=%s\n' $(( at * 2048 )) $(( size * 2048 )) "$type" "$uuid" "$part"
        echo "$part $at $size" >> "$work/places"
        at=$(( at + size ))
    done
} > "$work/table"
for part in $LAYOUT_PARTITIONS; do at=$(awk -v part="$part" '$1 == part { print $2 + $3 }' "$work/places"); done
disk=$out/$name.img
rm -f "$disk"
# One MiB more for the second table.
truncate -s $(( at + 1 ))M "$disk"
$SFDISK --quiet --no-reread --no-tell-kernel "$disk" < "$work/table" > /dev/null
put() { # partition, file
    dd if="$2" of="$disk" bs=1M seek="$(awk -v part="$1" '$1 == part { print $2 }' "$work/places")" conv=notrunc,sparse status=none
}
put esp "$esp"
put boot-a "$parts/boot.efi"
put slot-a "$parts/rootfs.img"

$PYTHON3 "$here/blockmap.py" "$disk" > "$disk.bmap"
$ZSTD -q -f -T2 -12 --long=27 "$disk" -o "$disk.zst"
(cd "$out" && sha256sum "$name.img.zst" "$name.img.bmap" > "$name.SHA256SUMS"
    cat ./*.SHA256SUMS > SHA256SUMS && rm -f ./*.SHA256SUMS)
