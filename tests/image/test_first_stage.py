"""The first stage alone: kernel and RAM file system of the real image, started without firmware on a damaged disk.

Each start ends within seconds, because it never gets to systemd; what the boot loader does then is in test_update.py.
"""

import json
import re
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from harness import images
from harness.disk import BLOCK, blackbox, partitions, sections
from harness.tools import run, tool
from harness.waiting import patience

#: A start alone takes seconds; this is for a machine that does much else.
TIME = 180


class Stage:
    """A disk, and starts of the first stage on it."""

    def __init__(self, image: images.Image, folder: Path) -> None:
        self.folder = folder
        self.disk = folder / "disk"
        run(["cp", "--sparse=always", image.disk, self.disk])
        parts = sections(image.uki)
        (folder / "kernel").write_bytes(parts[".linux"])
        (folder / "initrd").write_bytes(parts[".initrd"])
        said = parts[".cmdline"].decode().strip("\0\n ").split()
        self.words = [word for word in said if word != "quiet" and not word.startswith(("loglevel=", "console="))]
        self.root_size = (image.folder / "rootfs.img").stat().st_size

    def damage(self, label: str, *blocks: int) -> None:
        """Turns over a byte of blocks of a partition."""
        where = partitions(self.disk)[label]
        with self.disk.open("r+b") as file:
            for block in blocks:
                file.seek(where.offset + block * BLOCK + 100)
                byte = file.read(1)
                file.seek(-1, 1)
                file.write(bytes([byte[0] ^ 0xFF]))

    def copy(self, source: str, target: str) -> None:
        """Copies a root to another slot."""
        known = partitions(self.disk)
        with self.disk.open("r+b") as file:
            file.seek(known[source].offset)
            data = file.read(self.root_size)
            file.seek(known[target].offset)
            file.write(data)

    def keep(self, *events: dict[str, object]) -> None:
        """Writes records into the empty black box."""
        where = partitions(self.disk)["blackbox"]
        with self.disk.open("r+b") as file:
            for number, event in enumerate(events, 1):
                text = json.dumps({"seq": number, "time_ms": 0, "boot_id": "", "event": event}).encode()
                body = struct.pack("<QI", number, len(text)) + text
                file.seek(where.offset + (2 + number) * BLOCK)
                file.write(b"ARBR" + struct.pack("<I", zlib.crc32(body)) + body)

    def start(self, until: str = "", words: tuple[str, ...] = ()) -> str:
        """Starts it, until a text is on the console or the box resets; gives the console."""
        command = [
            tool("qemu-system-x86_64"), "-nodefaults", "-display", "none", "-machine", "q35",
            "-accel", "tcg,thread=multi", "-cpu", "max,-cx16", "-m", "512", "-no-reboot", "-serial", "stdio",
            "-kernel", str(self.folder / "kernel"), "-initrd", str(self.folder / "initrd"),
            "-append", " ".join([*self.words, "console=ttyS0", *words]),
            "-drive", f"file={self.disk},format=raw,if=virtio",
        ]
        said = []
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as box:
            watch = subprocess.Popen(["sleep", str(TIME)])
            try:
                assert box.stdout is not None
                for line in box.stdout:
                    said.append(line.decode(errors="replace").rstrip())
                    if (until and until in said[-1]) or watch.poll() is not None:
                        break
            finally:
                watch.kill()
                watch.wait()
                box.kill()
        return "\n".join(said)

    def events(self) -> list[dict[str, object]]:
        """The black box."""
        return [record["event"] for record in blackbox(self.disk)]  # type: ignore[misc]


@pytest.fixture
def stage(image_a: images.Image, tmp_path: Path) -> Stage:
    """A fresh disk."""
    return Stage(image_a, tmp_path)


def test_a_sound_disk_is_found_at_once_and_nothing_is_warned_of(stage: Stage) -> None:
    console = stage.start(until="starting slot", words=("loglevel=7", "printk.time=1"))
    said = re.findall(r"\[ *(\d+\.\d+)\] arinit: (.*)", console)
    assert [text for _, text in said] == [said[0][1], said[-1][1]], console[-2000:]
    assert said[0][1].startswith("first stage ") and said[-1][1].startswith("starting slot a "), console[-2000:]
    # A second or two under emulation; a disk that is waited for is given half a minute.
    assert float(said[-1][0]) - float(said[0][0]) < 5 * patience(), console[-2000:]


def test_a_root_that_is_damaged_is_refused_and_the_reason_is_kept(stage: Stage) -> None:
    stage.damage("slot-a", 0)
    console = stage.start()
    assert "`slot-a`: its first block is damaged" in console, console[-2000:]
    assert "reboot: Restarting system" in console, console[-2000:]
    started, failed = stage.events()
    assert (started["event"], failed["event"]) == ("started", "first_stage_failed")
    assert "`slot-a`: its first block is damaged" in str(failed["reason"])


def test_the_same_root_in_the_other_slot_is_taken(stage: Stage) -> None:
    stage.copy("slot-a", "slot-b")
    stage.damage("slot-a", 0)
    console = stage.start(until="starting slot")
    assert "from `slot-b`" in console, console[-2000:]
    assert [event["event"] for event in stage.events()] == ["started"]


def test_a_root_hash_that_no_slot_has_starts_nothing(stage: Stage) -> None:
    console = stage.start(words=("arint.root=" + "00" * 32,))
    assert "no partition has the root 000000000000: `slot-a`: it holds another root" in console, console[-2000:]
    assert "starting slot" not in console, console[-2000:]


def test_a_block_that_rots_behind_the_first_one_ends_in_a_panic_and_a_reset(stage: Stage) -> None:
    stage.damage("slot-a", *range(1, stage.root_size // BLOCK * 9 // 10))
    console = stage.start()
    assert "Kernel panic - not syncing: dm-verity device corrupted" in console, console[-2000:]
    assert "Rebooting in 5 seconds" in console, console[-2000:]


@pytest.mark.parametrize(
    ("starts", "beside", "refused"),
    [(4, "b", False), (5, "b", True), (9, "recovery", False), (10, "recovery", True)],
)
def test_after_five_starts_in_a_row_that_were_not_confirmed_the_other_slot_is_next_and_after_ten_the_recovery_system(
    stage: Stage, starts: int, beside: str, refused: bool,
) -> None:
    started = {"event": "started", "slot": "a", "entry": "", "version": "1", "cause": None}
    stage.keep(*[started] * starts)
    if beside == "b":
        esp = f"{stage.disk}@@{partitions(stage.disk)['esp'].offset}"
        entry = stage.folder / "entry"
        entry.write_text("title ARINT 2 (b)\nsort-key arint\nversion 000002-2\nefi /EFI/arint/b-000002.efi\n")
        run(["mcopy", "-i", esp, entry, "::/loader/entries/arint-000002-b.conf"])
        run(["mcopy", "-i", esp, entry, "::/EFI/arint/b-000002.efi"])
    console = stage.start(until="starting slot")
    assert (f"{starts} starts in a row were not confirmed" in console) == refused, console[-2000:]
    assert ("starting slot a" in console) != refused, console[-2000:]
    assert [event["event"] for event in stage.events()[starts:]] == ["started", *["first_stage_failed"] * refused]
