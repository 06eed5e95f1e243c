"""The programs the harness calls, and the Debian packages they come from."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "swtpm": "swtpm",
    "mcopy": "mtools",
    "veritysetup": "cryptsetup-bin",
    "mkfs.vfat": "dosfstools",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "sfdisk": "fdisk",
    "zstd": "zstd",
    "xz": "xz-utils",
    "openssl": "openssl",
    "qemu-io": "qemu-utils",
    "sbattach": "sbsigntool",
    "sbsign": "sbsigntool",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "avahi-daemon": "avahi-daemon",
    "avahi-browse": "avahi-utils",
    "dbus-daemon": "dbus-daemon",
    "dnsmasq": "dnsmasq-base",
    "chronyd": "chrony",
    "wpa_supplicant": "wpasupplicant",
    "objcopy": "binutils",
    "objdump": "binutils",
    "dpkg-deb": "dpkg",
}

OVMF = Path("/usr/share/OVMF")


class Missing(RuntimeError):
    """A program is not installed."""


class Failed(RuntimeError):
    """A program said no."""


def tool(name: str) -> str:
    """The path of a program; names its package if it is missing."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"`{name}` is missing; install the Debian package `{PACKAGES.get(name, name)}`")
    return found


def run(argv: Sequence[str | Path], *, cwd: Path | None = None, stdin: bytes | None = None) -> bytes:
    """Runs a program and gives what it printed; says everything it said where it fails."""
    words = [str(word) for word in argv]
    words[0] = tool(words[0]) if "/" not in words[0] else words[0]
    done = subprocess.run(words, cwd=cwd, input=stdin, capture_output=True, check=False)
    if done.returncode != 0:
        said = (done.stderr + done.stdout).decode(errors="replace").strip()
        raise Failed(f"`{' '.join(words)}` ended with {done.returncode}: {said}")
    return done.stdout


def firmware(secure: bool) -> tuple[Path, Path]:
    """OVMF's code and its empty variables."""
    code = OVMF / ("OVMF_CODE_4M.secboot.fd" if secure else "OVMF_CODE_4M.fd")
    variables = OVMF / "OVMF_VARS_4M.fd"
    for path in (code, variables):
        if not path.exists():
            raise Missing(f"`{path}` is missing; install the Debian package `ovmf`")
    return code, variables
