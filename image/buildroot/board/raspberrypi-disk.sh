#!/bin/sh
# The disk image of a Raspberry Pi: firmware and U-Boot on the first partition, U-Boot's environment, then the same
# partitions under the same labels as on every box.
#
# Usage: raspberrypi-disk.sh PARTS_DIR OUT_DIR
# Environment: BINARIES_DIR (Buildroot's), SOURCE_DATE_EPOCH; PATH with genimage, mkimage, mtools, mkfs.vfat
# shellcheck disable=SC1091,SC2154  # what is sourced is found from the repository only
set -eu
parts=$1 out=$2
top=$(cd "$(dirname "$0")/../../.." && pwd)
# shellcheck source=image/contract/layout.sh
. "$top/image/contract/layout.sh"
: "${BINARIES_DIR:?}" "${SOURCE_DATE_EPOCH:?}"

work=$(mktemp -d "$out/disk.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/input" "$work/root" "$work/tmp"
cp "$BINARIES_DIR"/*.dtb "$BINARIES_DIR/u-boot.bin" "$BINARIES_DIR/boot.scr" "$work/input/"
cp -r "$BINARIES_DIR"/rpi-firmware/* "$work/input/"
# The recovery system starts with the same kernel as slot A did when the card was written.
cp "$parts/boot.efi" "$work/input/recovery.itb"
files=$(cd "$work/input" && find . -mindepth 1 -maxdepth 1 | LC_ALL=C sort | sed 's|^\./\(.*\)$|"\1",|' | tr '\n' ' ')
cp "$parts/boot.efi" "$work/input/boot.itb"
cp "$parts/rootfs.img" "$work/input/rootfs.img"

mib() { # partition
    case $1 in
    boot-*) echo "$LAYOUT_MIB_boot" ;;
    slot-*) echo "$LAYOUT_MIB_slot" ;;
    *) eval "echo \"\$LAYOUT_MIB_$1\"" ;;
    esac
}
{
    # shellcheck disable=SC2154  # set by layout.sh
    printf 'image esp.vfat {\n vfat { label = "ESP" files = { %s } }\n size = %sM\n}\n' "$files" "$LAYOUT_MIB_esp"
    # shellcheck disable=SC2154
    printf 'image image.img {\n hdimage { partition-table-type = "gpt" disk-uuid = "%s" align = "1M" }\n' "$UUID_disk"
    for part in $LAYOUT_PARTITIONS; do
        eval "type=\$TYPE_${part%%-*} uuid=\$UUID_$(echo "$part" | tr - _)"
        case $part in
        # The first in the table, as U-Boot and the firmware want it, behind the environment on the disk.
        esp) image='image = "esp.vfat" offset = 2M' ;;
        boot-a) image='image = "boot.itb"' ;;
        slot-a) image='image = "rootfs.img"' ;;
        *) image= ;;
        esac
        # shellcheck disable=SC2154  # set by eval
        printf ' partition %s { %s size = %sM partition-type-uuid = "%s" partition-uuid = "%s" }\n' \
            "$part" "$image" "$(mib "$part")" "$type" "$uuid"
    done
    # At 1 MiB, where hw/raspberrypi/u-boot.config says; its type is Linux data.
    printf ' partition uboot-env { offset = 1M size = 1M partition-type-uuid = "L" }\n'
    echo '}'
} > "$work/genimage.cfg"
genimage --rootpath "$work/root" --tmppath "$work/tmp" --inputpath "$work/input" --outputpath "$work" \
    --config "$work/genimage.cfg"

mv "$work/image.img" "$out/image.img"
python3 "$top/image/contract/blockmap.py" "$out/image.img" > "$out/image.img.bmap"
zstd -q -f -T2 -12 --long=27 "$out/image.img" -o "$out/image.img.zst"
(cd "$out" && sha256sum image.img.zst image.img.bmap > SHA256SUMS)
