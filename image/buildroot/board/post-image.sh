#!/bin/sh
# From the parts of a slot to what is delivered: disk image, installer, update bundle, list of materials.
# Called by Buildroot after everything else.
# shellcheck disable=SC1091,SC2154  # what is sourced is found from the repository only
set -eu
# shellcheck source=image/buildroot/board/board.sh
. "$(dirname "$0")/board.sh"
need zstd zstd
out=$BINARIES_DIR/arint
mkdir -p "$out"

if [ "$firmware" = u-boot ]; then
    # What comes before systemd-boot lies on the ESP as well: the chip's firmware, its device trees, U-Boot.
    ESP_FILES=$BINARIES_DIR/esp
    export ESP_FILES
    rm -rf "$ESP_FILES"
    mkdir -p "$ESP_FILES"
    cp -r "$BINARIES_DIR"/rpi-firmware/. "$ESP_FILES/"
    cp "$BINARIES_DIR"/*.dtb "$BINARIES_DIR/u-boot.bin" "$ESP_FILES/"
    "$contract/disk.sh" "$parts" "$out"
else
    "$contract/disk.sh" "$parts" "$out"
    # A board that starts from a card alone has nothing to install onto.
    "$contract/disk.sh" --installer "$parts" "$out"
fi
"$contract/bundle.sh" "$parts" "$out/bundle.raucb"
cp "$parts/manifest.json" "$out/"

# The kernel's rules drop what they do not like without a word.
for config in "${BUILD_DIR:?is set by Buildroot}"/linux-*/.config; do
    case $config in */linux-headers-*|*/linux-firmware-*) continue ;; esac
    [ -e "$config" ] || continue
    "$contract/check-kernel.sh" "$config" "$tree/kernel.config" "$top/hw/$board/kernel.config"
done
echo "image: $out"
