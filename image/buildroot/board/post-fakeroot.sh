#!/bin/sh
# The root of a box, and from it what a slot holds, by the steps that both bases share.
# Called by Buildroot with its copy of the target folder, in an environment in which files may belong to anybody.
# shellcheck disable=SC1091,SC2154  # what is sourced is found from the repository only
set -eu
root=$1
# shellcheck source=image/buildroot/board/board.sh
. "$(dirname "$0")/board.sh"
need systemd-sysusers systemd
need cpio cpio
need cert-to-efi-sig-list efitools

"$contract/keys.sh" "$KEYS"
"$contract/root.sh" "$root" "$BINARIES_DIR/arint-program"

KERNEL_RELEASE=$(basename "$(find "$root/usr/lib/modules" -mindepth 1 -maxdepth 1 -type d | head -n 1)")
export KERNEL_RELEASE
# Everything on the way to the root is built in, so the first stage brings no modules.
"$contract/initramfs.sh" "$BINARIES_DIR/arinit" - "$BINARIES_DIR/first-stage.cpio.zst"

case $boot in
systemd-boot)
    need sbsign sbsigntool
    need faketime faketime
    for kernel in "$BINARIES_DIR/bzImage" "$BINARIES_DIR/Image"; do if [ -e "$kernel" ]; then break; fi; done
    ;;
u-boot)
    kernel=$BINARIES_DIR/Image.gz
    # U-Boot starts a FIT image where UEFI starts a unified one.
    export BOOT_IMAGE="$tree/board/fit.sh"
    # RAUC speaks U-Boot's language here: its own environment instead of entries on an ESP.
    install -m 0644 "$top/hw/raspberrypi/fw_env.config" "$root/etc/fw_env.config"
    sed -i 's/^bootloader=.*/bootloader=uboot/; /^bootloader-custom-backend=/d' "$root/etc/rauc/system.conf"
    ;;
esac
"$contract/assemble.sh" "$root" "$kernel" "$BINARIES_DIR/first-stage.cpio.zst" "$parts"
