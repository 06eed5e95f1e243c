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

need sbsign sbsigntool
need faketime faketime
for kernel in "$BINARIES_DIR/bzImage" "$BINARIES_DIR/Image"; do if [ -e "$kernel" ]; then break; fi; done
"$contract/assemble.sh" "$root" "$kernel" "$BINARIES_DIR/first-stage.cpio.zst" "$parts"
