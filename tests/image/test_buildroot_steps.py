"""The steps after a build with Buildroot, run for real over folders laid out as Buildroot leaves them.

Buildroot itself is not run: its target is a small part of the bench image's root, its kernel is Debian's.
So what is looked at is what our steps make of it: the root's files, the disk, the installer, the bundle, the refusals.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import bundles, disk, images
from harness.tools import run, tool

TOP = Path(__file__).resolve().parents[2]
#: Of the root, what the steps touch or read.
PARTS = ["etc", "usr/lib/systemd", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d", "usr/share/dbus-1", "usr/share/zoneinfo/UTC"]
#: Buildroot's own tools for the build machine, by their names.
HOST = ["mkfs.erofs", "veritysetup", "mkfs.vfat", "sfdisk", "mcopy", "mmd", "zstd", "rauc", "mksquashfs", "systemctl"]


def kept() -> Path:
    """Where the recipe of the bench image keeps its trees."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "arint/image"
    return Path(os.environ.get("ARINT_IMAGE_CACHE") or default)


def wanted(board: str) -> str:
    """A kernel configuration in which everything that is asked for took effect."""
    names = ["image/contract/kernel.config", "image/buildroot/kernel.config", f"hw/{board}/kernel.config"]
    lines = "\n".join((TOP / name).read_text() for name in names).splitlines()
    return "\n".join({line.split("=")[0]: line for line in lines if re.match(r"CONFIG_\w+=", line)}.values()) + "\n"


class Steps:
    """Folders as Buildroot lays them out, and our steps in the tree of the tools."""

    def __init__(self, folder: Path, board: str) -> None:
        self.folder, self.board = folder, board
        self.tools = next(path.parent for path in kept().glob("tools-*/ready"))
        base = next(kept().glob("base-*"))
        self.images, self.target = folder / "images", folder / "target"
        for name in ("target/usr/bin", "target/usr/lib/modules", "images", "host/bin", "build/linux-6.12"):
            (folder / name).mkdir(parents=True)
        for part in PARTS:
            (self.target / part).parent.mkdir(parents=True, exist_ok=True)
            run(["cp", "-a", base / "root" / part, self.target / part])
        (self.target / "usr/lib/modules" / (base / "kernel/release").read_text().strip()).mkdir()
        # Debian has taken these out by now; Buildroot brings them.
        (self.target / "usr/lib/systemd/system/getty@.service").write_text("[Service]\nExecStart=/sbin/agetty\n")
        (self.target / "usr/lib/python3.12/test").mkdir(parents=True)
        loader = self.target / "usr/lib/systemd/boot/efi"
        loader.mkdir(parents=True)
        # What runs on the board is not looked at here, so these are this machine's under the board's names.
        arch = "x64" if board.endswith("x86_64") else "aa64"
        for name in ("systemd-boot{}.efi", "linux{}.efi.stub"):
            shutil.copy(self.tools / "usr/lib/systemd/boot/efi" / name.format("x64"), loader / name.format(arch))
        shutil.copy(base / "kernel/vmlinuz", self.images / ("bzImage" if arch == "x64" else "Image"))
        for name in ("arint-program", "arinit"):
            (self.images / name).write_bytes(b"\x7fELF" + name.encode() * 1000)
            (self.images / name).chmod(0o755)
        (folder / "config").write_text(f'BR2_PACKAGE_ARINT_BOARD="{board}"\n')
        (folder / "build/linux-6.12/.config").write_text(wanted(board))
        for name in HOST:
            (folder / "host/bin" / name).symlink_to(f"/usr/{'s' if (self.tools / 'usr/sbin' / name).exists() else ''}bin/{name}")
        for name in ("objcopy", "objdump"):
            (folder / f"host/bin/board-linux-gnu-{name}").symlink_to(f"/usr/bin/{name}")

    def step(self, name: str, argument: str) -> subprocess.CompletedProcess[str]:
        """Runs one of our steps as Buildroot does."""
        words = {
            "BINARIES_DIR": "/run/b/images", "HOST_DIR": "/run/b/host", "BR2_CONFIG": "/run/b/config", "BUILD_DIR": "/run/b/build",
            "TARGET_DIR": "/run/b/target", "ARINT_KEYS": "/run/keys", "ARINT_IMAGE_VERSION": images.VERSION_A,
            "SOURCE_DATE_EPOCH": "1795244000", "LC_ALL": "C.UTF-8", "HOME": "/tmp", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        inside = 'cd "$0" && mount -t tmpfs none run && mkdir run/b run/keys run/top && mount --bind "$1" run/b' \
            ' && mount --bind "$2" run/keys && mount --bind "$3" run/top && mount -t tmpfs none tmp' \
            ' && touch dev/null && mount --bind /dev/null dev/null && touch dev/urandom && mount --bind /dev/urandom dev/urandom' \
            ' && mount --rbind /proc proc && shift 3 && exec chroot . env -i "$@"'
        spaces = [] if os.geteuid() == 0 else ["--map-root-user", "--map-auto"]
        command = [tool("unshare"), "--mount", "--propagation=private", *spaces, "sh", "-c", inside, str(self.tools),
                   str(self.folder), str(images.keys()), str(TOP), *(f"{key}={value}" for key, value in words.items()),
                   f"/run/top/image/buildroot/board/{name}", argument]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": words["PATH"]})

    def all(self) -> None:
        """All of them, in Buildroot's order."""
        for name, argument in (("post-build.sh", "/run/b/target"), ("post-fakeroot.sh", "/run/b/target"),
                               ("post-image.sh", "/run/b/images")):
            done = self.step(name, argument)
            assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"


def table(image: Path) -> list[tuple[object, ...]]:
    """The partitions: label, type, identity, place and size."""
    said = json.loads(run(["sfdisk", "--json", image]))["partitiontable"]
    return [(row["name"], row["type"], row["uuid"], row["start"], row["size"]) for row in said["partitions"]]


@pytest.mark.parametrize("board", ["generic/x86_64", "raspberrypi/rpi4"])
def test_the_steps_after_a_build_with_buildroot_make_the_same_box_as_the_bench_image(tmp_path: Path, board: str,
                                                                                   image_a: images.Image):
    steps = Steps(tmp_path / "b", board)
    if board == "raspberrypi/rpi4":
        (steps.images / "rpi-firmware").mkdir()
        shutil.copy(TOP / "hw/raspberrypi/rpi4/config.txt", steps.images / "rpi-firmware/config.txt")
        for name in ("rpi-firmware/start4.elf", "u-boot.bin", "bcm2711-rpi-4-b.dtb"):
            (steps.images / name).write_bytes(name.encode())
    steps.all()
    out = steps.images / "arint"

    # The root.
    assert not (steps.target / "usr/lib/systemd/boot").exists()
    assert not (steps.target / "usr/lib/systemd/system/getty@.service").is_file()
    assert not (steps.target / "usr/lib/python3.12/test").exists()
    assert os.readlink(steps.target / "usr/bin/arclst") == "arint"
    assert f"IMAGE_ID=arint-{board.replace('/', '-')}\n" in (steps.target / "usr/lib/os-release").read_text()
    assert "VARIANT_ID=release\n" in (steps.target / "usr/lib/os-release").read_text()
    assert "bootloader=custom\n" in (steps.target / "etc/rauc/system.conf").read_text()

    # The disk: partition for partition that of the bench image, its slot as the kernel image says.
    assert table(out / "image.img") == table(image_a.disk)
    esp = disk.Esp(out / "image.img")
    assert [entry.name for entry in esp.entries()] == ["arint-000001-a+3.conf", "arint-000000-recovery.conf"]
    said = disk.words(esp.read("/EFI/arint/a-000001.efi"))
    assert said and disk.slot_holds(out / "image.img", disk.partitions(out / "image.img")["slot-a"], said)
    if board == "raspberrypi/rpi4":
        assert {"config.txt", "start4.elf", "u-boot.bin", "bcm2711-rpi-4-b.dtb"} < set(esp.files("/"))
        assert esp.files("/EFI/BOOT") == ["BOOTAA64.EFI"]
        assert not (out / "installer.img.zst").exists()
    else:
        assert esp.files("/EFI/BOOT") == ["BOOTX64.EFI"]
        assert disk.Esp(out / "installer.img").files("/loader/entries").count("arint-000002-install.conf") == 1
    sums = run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=out)
    assert sums == b""

    # The bundle: what the bench image's says, for this board.
    told = [bundles.manifest(bundle) for bundle in (out / "bundle.raucb", image_a.bundle)]
    mine, bench = ({line for line in text.splitlines() if re.match(r"\[|compatible|version|format|filename|adaptive", line)}
                   for text in told)
    assert {line.replace(board.replace("/", "-"), "generic-x86_64") for line in mine} == bench


def test_a_kernel_that_lost_an_option_and_a_board_that_does_not_exist_stop_the_build(tmp_path: Path):
    steps = Steps(tmp_path / "b", "generic/x86_64")
    config = steps.folder / "build/linux-6.12/.config"
    config.write_text(config.read_text().replace("CONFIG_DM_VERITY=y\n", "# CONFIG_DM_VERITY is not set\n"))
    steps.step("post-build.sh", "/run/b/target")
    assert steps.step("post-fakeroot.sh", "/run/b/target").returncode == 0
    done = steps.step("post-image.sh", "/run/b/images")
    assert done.returncode != 0
    assert "asks for CONFIG_DM_VERITY=y, the kernel has n" in done.stderr
    (steps.folder / "config").write_text('BR2_PACKAGE_ARINT_BOARD="generic/toaster"\n')
    done = steps.step("post-fakeroot.sh", "/run/b/target")
    assert (done.returncode, done.stderr) == (1, "image: BR2_PACKAGE_ARINT_BOARD is `generic/toaster`, which is no board in hw/\n")
