"""`scripts/flash.sh` on real files and real loop devices: it writes, it compares, and it refuses what must not be hit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLASH = ROOT / "scripts/flash.sh"
MIB = 1 << 20


@dataclass
class Image:
    """An image with what lies beside it, and what it holds."""

    path: Path
    content: bytes


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """12 MiB with data at both ends and in the middle, a hole between, and zeros that mean something."""
    content = bytearray(12 * MIB)
    content[0:700_000] = os.urandom(700_000)
    content[5 * MIB : 5 * MIB + 9000] = os.urandom(9000)
    content[12 * MIB - 4096 :] = os.urandom(4096)
    folder = tmp_path / "delivered"
    folder.mkdir()
    plain = folder / "image.img"
    plain.write_bytes(content)
    block_map = subprocess.run(
        [sys.executable, ROOT / "image/contract/blockmap.py", plain], check=True, capture_output=True, text=True
    )
    (folder / "image.img.bmap").write_text(block_map.stdout)
    subprocess.run(["zstd", "-q", "--rm", plain], check=True)
    sums = subprocess.run(["sha256sum", "image.img.zst", "image.img.bmap"], cwd=folder, check=True, capture_output=True)
    (folder / "SHA256SUMS").write_bytes(sums.stdout)
    return Image(folder / "image.img.zst", bytes(content))


def as_root(*words: str | Path) -> list[str]:
    """The call as root; loop devices need it."""
    return [*([] if os.getuid() == 0 else ["sudo", "-n"]), *map(str, words)]


@contextmanager
def disk(tmp_path: Path, size: int, fill: bytes = b"old data ") -> Iterator[tuple[Path, Path]]:
    """A loop device full of old data, and the file behind it."""
    behind = tmp_path / f"disk-{size}.img"
    behind.write_bytes((fill * (size // len(fill) + 1))[:size])
    made = subprocess.run(as_root("losetup", "--find", "--show", behind), capture_output=True, text=True, check=False)
    assert made.returncode == 0, f"loop devices are needed, and root or sudo for them: {made.stderr}"
    device = Path(made.stdout.strip())
    try:
        yield device, behind
    finally:
        subprocess.run(as_root("losetup", "--detach", device), check=True)


def flash(image: Path, device: Path, answer: str = "", *options: str, path: Path | None = None) -> tuple[int, str]:
    """Exit code, and what was said."""
    env = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}:/usr/sbin:/sbin"} if path else dict(os.environ)
    call = [str(FLASH), "--quiet", *options, str(image), "" if device == Path("") else str(device)]
    if str(device).startswith("/dev/"):
        call = as_root("env", f"PATH={env['PATH']}", *call)
    done = subprocess.run(call, input=f"{answer}\n", capture_output=True, text=True, check=False, env=env)
    return done.returncode, done.stdout + done.stderr


def meant(device: Path) -> tuple[str, str, str]:
    """The words with which a disk that is not removable may be written."""
    return device.name, "--force-with-name", device.name


def test_a_plain_file_gets_the_image_without_root_or_question(image: Image, tmp_path: Path) -> None:
    target = tmp_path / "target.img"
    call = [str(FLASH), "--quiet", str(image.path), str(target)]
    if os.getuid() == 0:
        tmp_path.chmod(0o777)
        for folder in tmp_path.parents:
            if folder.owner() == "root" and folder.name.startswith("pytest-"):
                folder.chmod(0o755)
        call = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *call]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == image.content


def test_a_disk_gets_every_byte_of_the_image_zeros_included(image: Image, tmp_path: Path) -> None:
    with disk(tmp_path, 40 * MIB) as (device, behind):
        code, said = flash(image.path, device, *meant(device))
        assert code == 0, said
        assert f"{device}  41.9 MB" in said, "it shows what will be erased"
        assert said.endswith("read back and compared; it can be taken out\n")
        assert behind.read_bytes()[: len(image.content)] == image.content
        after = behind.read_bytes()[len(image.content) :]
        assert after[: 16 * MIB] == bytes(16 * MIB), "old file systems behind the image would be found again"


def test_nothing_is_written_when_another_name_is_typed(image: Image, tmp_path: Path) -> None:
    with disk(tmp_path, 20 * MIB) as (device, behind):
        before = behind.read_bytes()
        code, said = flash(image.path, device, "yes", "--force-with-name", device.name)
        assert said.endswith(f"flash: `yes` is not `{device.name}`: nothing was written\n")
        assert code == 1
        assert behind.read_bytes() == before


def test_a_disk_that_is_not_removable_is_refused_unless_it_is_named(image: Image, tmp_path: Path) -> None:
    with disk(tmp_path, 20 * MIB) as (device, behind):
        before = behind.read_bytes()
        assert flash(image.path, device, device.name) == (
            1,
            f"flash: `{device}` is not removable, so it may be this machine's own: "
            f"if you mean it, add --force-with-name {device.name}\n",
        )
        code, said = flash(image.path, device, device.name, "--force-with-name", "sda")
        assert (code, said) == (1, f"flash: --force-with-name says `sda`, and the disk is `{device.name}`\n")
        assert behind.read_bytes() == before


def test_a_mounted_disk_is_refused_with_the_place_where_it_is_mounted(image: Image, tmp_path: Path) -> None:
    with disk(tmp_path, 64 * MIB, fill=bytes(9)) as (device, behind):
        subprocess.run(as_root("mkfs.ext4", "-q", "-F", device), check=True, capture_output=True)
        place = tmp_path / "place"
        place.mkdir()
        subprocess.run(as_root("mount", device, place), check=True)
        try:
            before = behind.read_bytes()
            assert flash(image.path, device, *meant(device)) == (
                1,
                f"flash: `{device}` is mounted: {device.name} at `{place}`; unmount it first (umount {place})\n",
            )
            assert behind.read_bytes() == before
        finally:
            subprocess.run(as_root("umount", place), check=True)


def test_a_disk_whose_partition_is_mounted_is_refused_and_so_is_the_partition(image: Image, tmp_path: Path) -> None:
    with disk(tmp_path, 64 * MIB, fill=bytes(9)) as (device, _):
        subprocess.run(as_root("sfdisk", "--quiet", device), input=b"label: gpt\nsize=50M\n", check=True)
        subprocess.run(as_root("partx", "--update", device), check=False, capture_output=True)
        part = Path(f"{device}p1")
        subprocess.run(as_root("mkfs.ext4", "-q", "-F", part), check=True, capture_output=True)
        assert flash(image.path, part, part.name) == (
            1,
            f"flash: `{part}` is a partition: name the disk it is on, {device}\n",
        )
        place = tmp_path / "place"
        place.mkdir()
        subprocess.run(as_root("mount", part, place), check=True)
        try:
            code, said = flash(image.path, device, *meant(device))
            assert (code, said) == (
                1,
                f"flash: `{device}` is mounted: {part.name} at `{place}`; unmount it first (umount {place})\n",
            )
        finally:
            subprocess.run(as_root("umount", place), check=True)
            subprocess.run(as_root("partx", "--delete", device), check=False, capture_output=True)


def test_the_disk_that_holds_the_system_is_refused_whatever_is_typed(image: Image, tmp_path: Path) -> None:
    with disk(tmp_path, 64 * MIB, fill=bytes(9)) as (device, _):
        subprocess.run(as_root("mkfs.ext4", "-q", "-F", device), check=True, capture_output=True)
        # In a mount name space of its own, this disk is where the machine boots from.
        script = f'mount {device} /boot && exec {FLASH} --force-with-name {device.name} {image.path} {device}'
        done = subprocess.run(
            as_root("unshare", "--mount", "sh", "-c", script),
            input=f"{device.name}\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (
            1,
            f"flash: `{device}` holds this system (`/boot` is on {device.name}): it is never written to\n",
        )


def test_a_disk_that_is_too_small_is_refused(image: Image, tmp_path: Path) -> None:
    with disk(tmp_path, 8 * MIB) as (device, _):
        code, said = flash(image.path, device, *meant(device))
        assert (code, said) == (1, f"flash: `{device}` has 8.4 MB, and the image needs 12.6 MB\n")


def test_a_read_only_disk_is_refused(image: Image, tmp_path: Path) -> None:
    with disk(tmp_path, 20 * MIB) as (device, _):
        subprocess.run(as_root("blockdev", "--setro", device), check=True)
        try:
            code, said = flash(image.path, device, *meant(device))
        finally:
            # The loop device keeps it for its next user.
            subprocess.run(as_root("blockdev", "--setrw", device), check=True)
        assert (code, said) == (1, f"flash: `{device}` is read-only: look for the switch on the card\n")


def test_a_disk_that_does_not_keep_what_was_written_is_found_by_reading_back(image: Image, tmp_path: Path) -> None:
    with disk(tmp_path, 20 * MIB) as (device, behind):
        # The last thing before reading back is the call that drops the kernel's own copies: there a bit flips.
        tools = tmp_path / "tools"
        tools.mkdir()
        flip = tools / "blockdev"
        flip.write_text(
            "#!/bin/sh\n"
            f'[ "$1" != --flushbufs ] || printf X | dd of={behind} bs=1 seek={5 * MIB + 17} conv=notrunc status=none\n'
            'PATH=${PATH#*:} exec blockdev "$@"\n'
        )
        flip.chmod(0o755)
        code, said = flash(image.path, device, *meant(device), path=tools)
        assert code == 1
        assert said.endswith(
            f"flash: `{device}` did not keep what was written (blocks 1280 to 1282): the disk is broken; use another one\n"
        )


def test_a_disk_that_fails_while_it_is_written_ends_with_an_error_and_not_with_done(image: Image, tmp_path: Path) -> None:
    place = tmp_path / "full"
    place.mkdir()
    subprocess.run(as_root("mount", "-t", "tmpfs", "-o", "size=300k,mode=777", "tmpfs", place), check=True)
    try:
        behind = place / "disk.img"
        behind.touch()
        os.truncate(behind, 20 * MIB)
        made = subprocess.run(as_root("losetup", "--find", "--show", behind), capture_output=True, text=True, check=True)
        device = Path(made.stdout.strip())
        try:
            code, said = flash(image.path, device, *meant(device))
        finally:
            subprocess.run(as_root("losetup", "--detach", device), check=True)
        assert code == 1
        assert "done" not in said
        assert f"flash: `{device}` did not " in said or f"flash: writing to `{device}` failed" in said
    finally:
        subprocess.run(as_root("umount", place), check=True)


def test_a_damaged_image_is_refused_before_anything_is_written(image: Image, tmp_path: Path) -> None:
    with disk(tmp_path, 20 * MIB) as (device, behind):
        before = behind.read_bytes()
        data = bytearray(image.path.read_bytes())
        data[len(data) // 2] ^= 1
        image.path.write_bytes(data)
        sums = image.path.parent / "SHA256SUMS"
        code, said = flash(image.path, device, *meant(device))
        assert (code, said) == (
            1,
            f"flash: `{image.path}` is damaged: its checksum is not the one in `{sums}`; fetch it again\n",
        )
        assert behind.read_bytes() == before


def test_an_image_that_is_cut_short_never_ends_with_done(image: Image, tmp_path: Path) -> None:
    (image.path.parent / "SHA256SUMS").unlink()
    data = image.path.read_bytes()
    image.path.write_bytes(data[: len(data) // 2])
    code, said = flash(image.path, tmp_path / "target.img")
    assert code == 1
    assert "done" not in said
    assert f"flash: the image `{image.path}` ended before block" in said


def test_a_damaged_block_map_is_refused(image: Image, tmp_path: Path) -> None:
    (image.path.parent / "SHA256SUMS").unlink()
    block_map = image.path.parent / "image.img.bmap"
    block_map.write_text(block_map.read_text().replace("<Range", "<range", 1))
    code, said = flash(image.path, tmp_path / "target.img")
    assert (code, said) == (1, f"flash: `{block_map}` is damaged: its own checksum does not fit; fetch it again\n")


def test_an_image_or_a_disk_that_is_not_there_is_said_in_one_sentence(image: Image, tmp_path: Path) -> None:
    assert flash(tmp_path / "none.img", tmp_path / "target.img") == (
        1,
        f"flash: there is no image `{tmp_path}/none.img`: build one with `make bench-image` or `make image BOARD=…`\n",
    )
    assert flash(image.path, Path("/dev/nonexistent")) == (
        1,
        "flash: there is no disk `/dev/nonexistent`: `lsblk -d` lists those that are there\n",
    )
    assert flash(image.path, Path("")) == (
        1,
        "flash: no disk is named: DEVICE=/dev/sdX was expected; `lsblk -d` lists those that are there\n",
    )
