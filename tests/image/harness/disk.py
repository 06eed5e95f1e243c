"""What lies on the disk of a box, read from outside: partitions, boot entries, slots, state.

It is written against docs/image.md and not against our own code, so that a fault there is not repeated here.
Nothing is changed, and nothing is started: a disk after a power cut is judged in a second instead of a boot.
"""

import hashlib
import json
import re
import struct
import subprocess
import tempfile
from contextlib import contextmanager
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.tools import Failed, run, tool

BLOCK = 4096
ENTRY = re.compile(r"^arint-(?P<generation>\d+)-(?P<slot>a|b|recovery)(?:\+(?P<left>\d+)(?:-(?P<done>\d+))?)?\.conf$")


class BadDisk(AssertionError):
    """The disk does not keep the contract."""


@dataclass(frozen=True)
class Partition:
    """A partition, bytes."""

    label: str
    offset: int
    size: int


def partitions(disk: Path) -> dict[str, Partition]:
    """The partitions by label, from the first GPT, or from the second where the first is torn."""
    found = tables(disk)
    if not found:
        raise BadDisk("neither of the two partition tables can be read")
    return found[0]


def tables(disk: Path) -> list[dict[str, Partition]]:
    """The partitions by label, as each copy of the GPT has them that is whole; the first copy first."""
    size = disk.stat().st_size
    whole = []
    with disk.open("rb") as file:
        for at in (512, size - 512):
            file.seek(at)
            head = file.read(92)
            if head[:8] != b"EFI PART" or _crc(head[:16] + bytes(4) + head[20:]) != struct.unpack_from("<I", head, 16)[0]:
                continue
            table, count, length, crc = struct.unpack_from("<QIII", head, 72)
            file.seek(table * 512)
            entries = file.read(count * length)
            if _crc(entries) != crc:
                continue
            found = {}
            for number in range(count):
                entry = entries[number * length:(number + 1) * length]
                if entry[:16] == bytes(16):
                    continue
                first, last = struct.unpack_from("<QQ", entry, 32)
                label = entry[56:128].decode("utf-16-le").rstrip("\0")
                found[label] = Partition(label, first * 512, (last - first + 1) * 512)
            whole.append(found)
    return whole


def _crc(data: bytes) -> int:
    import zlib

    return zlib.crc32(data)


# -- the ESP


@dataclass(frozen=True)
class Entry:
    """An entry of the boot loader."""

    name: str
    generation: int
    slot: str
    #: Tries left; none for one that is confirmed.
    left: int | None
    #: The UKI it names, as a path on the ESP.
    uki: str

    @property
    def exhausted(self) -> bool:
        """Whether systemd-boot puts it behind all others."""
        return self.left == 0


class Esp:
    """The files of the ESP."""

    def __init__(self, disk: Path) -> None:
        self._image = f"{disk}@@{partitions(disk)['esp'].offset}"

    def files(self, folder: str) -> list[str]:
        """The names in a folder."""
        try:
            lines = run(["mdir", "-b", "-i", self._image, f"::{folder}"]).decode().splitlines()
        except Failed as err:
            if "File " in str(err) or "no match" in str(err):
                return []
            raise BadDisk(f"the ESP cannot be read: {err}") from err
        return [line.rstrip("/").rsplit("/", 1)[-1] for line in lines if line.strip()]

    def read(self, path: str) -> bytes:
        """A file; empty where there is none."""
        done = subprocess.run([tool("mtype"), "-i", self._image, f"::{path}"], capture_output=True, check=False)
        return done.stdout if done.returncode == 0 else b""

    def entries(self) -> list[Entry]:
        """The entries, the one that is started first."""
        found = []
        for name in self.files("/loader/entries"):
            match = ENTRY.match(name)
            if not match:
                continue
            text = self.read(f"/loader/entries/{name}").decode(errors="replace")
            uki = next((line.split(None, 1)[1].strip() for line in text.splitlines() if line.startswith("efi ")), "")
            # systemd-boot passes over an entry whose program it does not find named.
            if uki:
                left = int(match["left"]) if match["left"] is not None else None
                found.append(Entry(name, int(match["generation"]), match["slot"], left, uki))
        return sorted(found, key=lambda entry: (entry.exhausted, -entry.generation, entry.slot))


# -- the UKI and its slot


def sections(pe: bytes) -> dict[str, bytes]:
    """The sections of a PE file; what is cut off is missing."""
    if pe[:2] != b"MZ":
        return {}
    (at,) = struct.unpack_from("<I", pe, 60)
    count, optional = struct.unpack_from("<H", pe, at + 6)[0], struct.unpack_from("<H", pe, at + 20)[0]
    found = {}
    for number in range(count):
        row = at + 24 + optional + number * 40
        name = pe[row:row + 8].rstrip(b"\0").decode(errors="replace")
        virtual, _, raw, start = struct.unpack_from("<IIII", pe, row + 8)
        data = pe[start:start + raw]
        if len(data) == raw:
            found[name] = data[:min(virtual, raw)] if virtual else data
    return found


@dataclass(frozen=True)
class Words:
    """What the command line of a UKI says of its root."""

    root: str
    blocks: int
    salt: bytes
    version: str


def words(uki: bytes) -> Words | None:
    """The words for the first stage; none where the UKI is no whole one."""
    text = sections(uki).get(".cmdline", b"").decode(errors="replace").strip("\0 \n")
    said = dict(word.split("=", 1) for word in text.split() if "=" in word)
    if not {"arint.root", "arint.verity"} <= said.keys():
        return None
    blocks, salt = said["arint.verity"].split(":")
    return Words(said["arint.root"], int(blocks), bytes.fromhex(salt), said.get("arint.version", ""))


def verity_tree(data: bytes, salt: bytes) -> tuple[str, bytes]:
    """The root hash of data and the tree as it is stored: SHA-256, format 1, blocks of 4096 bytes."""
    levels = []
    level = data
    while True:
        base = hashlib.sha256(salt)
        hashes = bytearray()
        for at in range(0, len(level), BLOCK):
            one = base.copy()
            one.update(level[at:at + BLOCK])
            hashes += one.digest()
        hashes += bytes(-len(hashes) % BLOCK)
        level = bytes(hashes)
        levels.append(level)
        if len(level) == BLOCK:
            break
    return hashlib.sha256(salt + levels[-1]).hexdigest(), b"".join(reversed(levels))


def slot_holds(disk: Path, partition: Partition, said: Words) -> bool:
    """Whether every block of the slot, and of its tree, is the one that the root hash stands for."""
    with disk.open("rb") as file:
        file.seek(partition.offset)
        data = file.read(said.blocks * BLOCK)
        root, tree = verity_tree(data, said.salt)
        return root == said.root and file.read(len(tree)) == tree


# -- the black box


def blackbox(disk: Path) -> list[dict[str, object]]:
    """The records of the black box, oldest first: blocks of 4 KiB, two of them headers; see arboot's `blackbox`."""
    where = partitions(disk)["blackbox"]
    with disk.open("rb") as file:
        file.seek(where.offset)
        ring = file.read(where.size)
    found = []
    for at in range(2 * BLOCK, len(ring), BLOCK):
        head = ring[at:at + 20]
        if head[:4] != b"ARBR":
            continue
        checksum, sequence, length = struct.unpack_from("<IQI", head, 4)
        text = ring[at + 20:at + 20 + length]
        if _crc(head[8:] + text) == checksum:
            record = json.loads(text)
            assert record["seq"] == sequence
            found.append(record)
    return sorted(found, key=lambda record: int(record["seq"]))


# -- judging a disk as the firmware, the boot loader and the first stage will


class Judge:
    """Says what a disk would start.  Costly answers are kept while the places they depend on do not change."""

    def __init__(self, known: dict[str, bytes]) -> None:
        #: SHA-256 of every UKI that was ever built for this test: a torn one is none of them.
        self._known = {hashlib.sha256(uki).hexdigest(): words(uki) for uki in known.values()}
        self._kept: dict[object, bool] = {}
        self._verdicts: dict[object, str] = {}

    def starts(self, disk: Path, changed: object = None) -> str:
        """The version that starts; raises where none would.  `changed` stands for the contents of a partition."""
        where = partitions(disk)
        if not callable(changed):
            return self._starts(disk, where, None)
        key = tuple(changed(where[label]) for label in ("esp", "slot-a", "slot-b", "recovery") if label in where)
        if key not in self._verdicts:
            self._verdicts[key] = self._starts(disk, where, changed)
        return self._verdicts[key]

    def _starts(self, disk: Path, where: dict[str, Partition], changed: object) -> str:
        esp = Esp(disk)
        for needed in ("/EFI/BOOT/BOOTX64.EFI", "/loader/loader.conf"):
            if not esp.read(needed):
                raise BadDisk(f"the ESP has no `{needed}`")
        entries = esp.entries()
        if not entries:
            raise BadDisk("no entry is left on the ESP")
        complaints = []
        # An entry that cannot be started is exhausted by its tries or by the first stage; the next one follows.
        for entry in entries:
            uki = esp.read(entry.uki)
            said = self._known.get(hashlib.sha256(uki).hexdigest()) or self._known.get(
                hashlib.sha256(uki.rstrip(b"\0")).hexdigest())
            if said is None:
                raise BadDisk(f"`{entry.name}` names `{entry.uki}`, which has {len(uki)} bytes and is none that was "
                              f"built: an entry stands only for a complete kernel image")
            for label in (f"slot-{entry.slot}", "slot-a", "slot-b", "recovery"):
                if label in where and self._holds(disk, where[label], said, changed):
                    return said.version
            complaints.append(f"`{entry.name}`: no slot has the root {said.root[:12]}")
        raise BadDisk("no entry leads to a root: " + "; ".join(complaints))

    def _holds(self, disk: Path, partition: Partition, said: Words, changed: object) -> bool:
        key = (partition, said.root, changed(partition) if callable(changed) else changed)
        if changed is None or key not in self._kept:
            self._kept[key] = slot_holds(disk, partition, said)
        return self._kept[key]


@contextmanager
def mounted(disk: Path, label: str, work: Path) -> Iterator[Path]:
    """A partition's file system on a copy of it, its log recovered as at a start; needs root."""
    partition = partitions(disk)[label]
    # A name of its own each time: one that is still mounted must not be overwritten.
    with tempfile.TemporaryDirectory(prefix=f"{label}-", dir=work) as made:
        copy, folder = Path(made) / "copy.img", Path(made) / "mounted"
        _copy_sparse(disk, partition, copy)
        folder.mkdir()
        # Every copy has the same UUID; two tests may look at the same time.
        run(["mount", "-o", "loop,nouuid", copy, folder])
        try:
            yield folder
        finally:
            # Lazily, so that a file left open fails the test and not the next mount.
            run(["umount", "--lazy", folder])


def _copy_sparse(disk: Path, partition: Partition, target: Path) -> None:
    import os

    with disk.open("rb") as source, target.open("wb") as out:
        out.truncate(partition.size)
        at, end = partition.offset, partition.offset + partition.size
        while at < end:
            try:
                at = os.lseek(source.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            hole = min(os.lseek(source.fileno(), at, os.SEEK_HOLE), end)
            while at < hole:
                source.seek(at)
                piece = source.read(min(1 << 20, hole - at))
                out.seek(at - partition.offset)
                out.write(piece)
                at += len(piece)
