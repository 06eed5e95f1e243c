"""A plain Debian 13, in the same QEMU: what the figures are compared with, and a stranger on the LAN.

It is what `mmdebstrap` makes of Debian's own packages with the cloud kernel, systemd-boot, networkd, OpenSSH and
a serial console: the smallest that people would call a server.  Nothing of ours is in it, but one unit that
prints on the serial console when `multi-user.target` is reached, and how much memory is used then and later.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from harness.tools import run

PACKAGES = (
    "systemd-sysv,systemd-resolved,systemd-timesyncd,systemd-boot,libpam-systemd,udev,dbus,linux-image-cloud-amd64,"
    "initramfs-tools,zstd,openssh-server,iproute2,login,kmod,ca-certificates"
)

UNIT = r"""[Unit]
Description=Says on the serial console that multi-user is reached
After=multi-user.target
[Service]
Type=simple
StandardOutput=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/sh -c 'echo PEER-MULTI-USER; sleep 20; while read -r key value unit; do case $key in MemTotal:|MemAvailable:) echo "PEER-$key $value";; esac; done </proc/meminfo; echo PEER-DONE; while sleep 3600; do :; done'
[Install]
WantedBy=graphical.target
"""

HOOK = r"""set -eu
root=$1
printf '[Match]\nName=en*\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/lan.network"
cp peer.service "$root/etc/systemd/system/peer.service"
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s /etc/systemd/system/peer.service "$root/etc/systemd/system/multi-user.target.wants/peer.service"
ln -sf /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/systemd-networkd.service"
echo 'LABEL=root / ext4 rw 0 1' >"$root/etc/fstab"
rm -rf "$root/var/cache/apt/archives"/*.deb "$root/var/lib/apt/lists"/*
cp "$root"/boot/vmlinuz-* kernel
cp "$root"/boot/initrd.img-* initrd
cp "$root"/usr/lib/systemd/boot/efi/systemd-bootx64.efi* .
rm -rf "$root"/boot/*
truncate -s 1400M root.img
# Without what is mounted inside (/proc, /sys, /dev): seen through a bind mount, those folders are empty.
mkdir plain
unshare --mount sh -c 'mount --bind "$1" plain && mkfs.ext4 -q -F -L root -d plain root.img' sh "$root"
"""


def cache() -> Path:
    """Where built things are kept between runs."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "arint" / "image-tests"


def build(folder: Path | None = None) -> Path:
    """Builds the peer's disk image, once, and gives its path."""
    mark = hashlib.sha256((PACKAGES + UNIT + HOOK + Path(__file__).read_text()).encode()).hexdigest()[:12]
    disk = (folder or cache()) / f"peer-{mark}.img"
    if disk.exists():
        return disk
    disk.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="arint-peer-") as made:
        work = Path(made)
        work.chmod(0o755)
        (work / "peer.service").write_text(UNIT)
        hook = work / "hook"
        hook.write_text("#!/bin/sh\ncd " + str(work) + "\n" + HOOK)
        hook.chmod(0o755)
        run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "--format=null",
             f"--customize-hook={hook} \"$1\"", "trixie", "-"])
        _assemble(work, work / "disk.img")
        shutil.move(work / "disk.img", disk.with_suffix(".part"))
        disk.with_suffix(".part").rename(disk)
    return disk


def _assemble(work: Path, disk: Path) -> None:
    """GPT: an ESP with systemd-boot, kernel and initial RAM disk, and the root."""
    esp = work / "esp.img"
    run(["truncate", "-s", "128M", esp])
    run(["mkfs.vfat", "-F", "32", "-n", "ESP", esp])
    (work / "entry").write_text(
        "title Debian\nlinux /kernel\ninitrd /initrd\n"
        "options root=LABEL=root ro console=ttyS0 no_timer_check systemd.show_status=1\n")
    (work / "loader").write_text("timeout 0\n")
    boot = next(path for path in sorted(work.glob("systemd-bootx64.efi*")))
    run(["mmd", "-i", esp, "::/EFI", "::/EFI/BOOT", "::/loader", "::/loader/entries"])
    for source, target in [(boot, "EFI/BOOT/BOOTX64.EFI"), (work / "kernel", "kernel"), (work / "initrd", "initrd"),
                           (work / "entry", "loader/entries/debian.conf"), (work / "loader", "loader/loader.conf")]:
        run(["mcopy", "-i", esp, source, f"::/{target}"])
    run(["truncate", "-s", "1540M", disk])
    run(["sfdisk", "-q", disk], stdin=b"label: gpt\nsize=128MiB, type=uefi, name=esp\nsize=1400MiB, name=root\n")
    run(["dd", f"if={esp}", f"of={disk}", "bs=1M", "seek=1", "conv=notrunc,sparse", "status=none"])
    run(["dd", f"if={work / 'root.img'}", f"of={disk}", "bs=1M", "seek=129", "conv=notrunc,sparse", "status=none"])
