#!/bin/sh
# Takes out of Buildroot's target what the root of a box has no use for, and puts the boot loader aside.
# Called by Buildroot with the target folder; what both bases share comes later, in post-fakeroot.sh.
set -eu
target=$1
: "${BINARIES_DIR:?is set by Buildroot}"

# systemd-boot and its stub belong onto the ESP and into the kernel image.
if [ -d "$target/usr/lib/systemd/boot/efi" ]; then
    mkdir -p "$BINARIES_DIR/efi"
    cp "$target"/usr/lib/systemd/boot/efi/* "$BINARIES_DIR/efi/"
    rm -rf "$target/usr/lib/systemd/boot"
fi

# Nobody logs in on a console, so nothing offers it.
rm -f "$target"/usr/lib/systemd/system-generators/systemd-getty-generator
for unit in getty@ serial-getty@ console-getty container-getty@ autovt@ debug-shell; do
    rm -f "$target/usr/lib/systemd/system/$unit.service"
done
rm -rf "$target/etc/init.d" "$target/etc/network"

# What workers never import.
for version in "$target"/usr/lib/python3.*; do
    for part in idlelib lib2to3 turtledemo tkinter ensurepip pydoc_data test; do rm -rf "${version:?}/$part"; done
done
