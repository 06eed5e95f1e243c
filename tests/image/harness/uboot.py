"""U-Boot for QEMU, as Debian builds it: what starts a Raspberry Pi instead of UEFI firmware.

Boot counting needs one that renames files for systemd-boot, which U-Boot does since 2025.04; Debian 13 has an older one.
So the newest of Debian's archive is fetched, once, with an apt whose folders are its own.
`ARINT_UBOOT` names a folder with `qemu-x86_64/u-boot.rom` instead.
"""

import os
import re
import zlib
from pathlib import Path

from harness.disk import partitions
from harness.peer import cache
from harness.tools import Missing, run, tool

PACKAGE = "u-boot-qemu"
#: The first that renames files.
OLDEST = (2025, 4)
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def uboot() -> Path:
    """The image that QEMU starts as `-bios`."""
    if given := os.environ.get("ARINT_UBOOT"):
        return Path(given) / "qemu-x86_64/u-boot.rom"
    kept = cache() / "u-boot"
    rom = kept / "usr/lib/u-boot/qemu-x86_64/u-boot.rom"
    if not rom.exists():
        _fetch(kept)
    return rom


def _fetch(kept: Path) -> None:
    """Fetches the package and unpacks it; nothing is installed."""
    folder = kept / "apt"
    for name in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    mirror = os.environ.get("ARINT_DEBIAN_MIRROR", "http://deb.debian.org/debian")
    # What is signed and old is as good as what is new: a mirror may lag behind.
    sources = (f"deb [signed-by={KEYRING} check-valid-until=no] {mirror} {suite} main\n" for suite in ("sid", "experimental"))
    (folder / "etc/apt/sources.list").write_text("".join(sources))
    settings = {
        "Dir": folder, "Dir::State::lists": folder / "lists", "Dir::State::status": folder / "status",
        "Dir::Cache::archives": folder / "archives", "APT::Architecture": "amd64", "APT::Architectures": "amd64",
        "APT::Sandbox::User": "root", "Acquire::Languages": "none",
    }
    apt = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    run(["apt-get", *apt, "-qq", "update"])
    table = run(["apt-cache", *apt, "madison", PACKAGE]).decode()
    versions = sorted(re.findall(r"\| *(\S+) *\|", table), key=_numbers)
    if not versions or _numbers(versions[-1]) < OLDEST:
        raise Missing(f"{mirror} has `{PACKAGE}` as {versions or 'nothing'}: {OLDEST[0]}.{OLDEST[1]:02} or later was expected")
    run(["apt-get", *apt, "-qq", "download", f"{PACKAGE}={versions[-1]}"], cwd=folder)
    run([tool("dpkg-deb"), "-x", next(folder.glob(f"{PACKAGE}_*.deb")), kept])
    run(["rm", "-r", folder])


def _numbers(version: str) -> tuple[int, int]:
    """Year and month of a release of U-Boot."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)


#: What U-Boot does: the boot command of `hw/raspberrypi/u-boot.config`, for the disk of this machine.
BOOT_COMMAND = "load virtio 0:1 ${kernel_addr_r} EFI/BOOT/BOOTX64.EFI && bootefi ${kernel_addr_r}; reset"
#: As Debian's build has them (CONFIG_ENV_SIZE).
ENVIRONMENT = 0x40000


def for_uboot(image: Path, out: Path) -> Path:
    """A copy of a disk image with two things on its ESP that only this machine needs.

    U-Boot's environment, so that Debian's build does what ours does.
    And an addon, by which the kernel does not give up a machine on which the timer comes late: under OVMF the harness
    says so in SMBIOS, but U-Boot brings tables of its own.
    """
    words = {"bootcmd": BOOT_COMMAND, "bootdelay": "-2", "kernel_addr_r": "0x2000000", "stdin": "serial",
             "stdout": "serial", "stderr": "serial"}
    text = b"".join(f"{key}={value}\0".encode() for key, value in words.items()).ljust(ENVIRONMENT - 4, b"\0")
    (out.parent / "uboot.env").write_bytes(zlib.crc32(text).to_bytes(4, "little") + text)
    stub = next(_tools().glob("usr/lib/systemd/boot/efi/addonx64.efi.stub"), None)
    if stub is None:
        raise Missing(f"`{_tools()}` has no stub for addons; image/debian/build makes that tree")
    (out.parent / "cmdline").write_text("no_timer_check\0")
    addon = out.parent / "timer.addon.efi"
    # Behind the stub's own sections, of which none is larger than a page.
    rows = [line.split() for line in run(["objdump", "-h", stub]).decode().splitlines() if line.strip()[:1].isdigit()]
    place = max(int(row[3], 16) for row in rows) + 4096
    run(["objcopy", "--add-section", f".cmdline={out.parent / 'cmdline'}", "--change-section-vma", f".cmdline={place:#x}",
         "--set-section-flags", ".cmdline=alloc,contents,load,readonly,data", stub, addon])
    run(["cp", "--sparse=always", image, out])
    esp = f"{out}@@{partitions(out)['esp'].offset}"
    run(["mcopy", "-i", esp, out.parent / "uboot.env", "::/uboot.env"])
    run(["mmd", "-i", esp, "::/loader/addons"])
    run(["mcopy", "-i", esp, addon, "::/loader/addons/timer.addon.efi"])
    return out


def _tools() -> Path:
    """The tree of the recipe's tools."""
    kept = Path(os.environ.get("ARINT_IMAGE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "arint/image")
    return next((path.parent for path in kept.glob("tools-*/ready")), kept)
