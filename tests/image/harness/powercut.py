"""What can be on a disk after a power cut, from the log of all its writes.

QEMU's `blklogwrites` keeps every request to the disk in order, in the format of dm-log-writes: a superblock, then
for each request one sector with where, how much and which flags, followed by the data.  A power cut after the
n-th request leaves: everything up to the last flush before n; every write since that was marked FUA; and of the
other writes since then any part, whole, torn between sectors, or not at all, in any combination.  Killing QEMU
alone shows nothing of this, because the host still has what the guest never flushed.

One file is walked through the whole log: cuts are made in it and undone, so that thousands cost seconds.
"""

import random
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.tools import run

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
#: Disks write a sector whole or not at all.
SECTOR = 512


class BadLog(ValueError):
    """A file that is no write log."""


@dataclass(frozen=True)
class Entry:
    """One request to the disk."""

    #: Where on the disk, bytes.
    offset: int
    #: How much, bytes.
    length: int
    flags: int
    #: Where the data lies in the log.
    data_at: int
    #: The end of the entry in the log: what was acknowledged when the log was this long was requested before.
    end: int
    log: Path

    def data(self) -> bytes:
        """What was written."""
        with self.log.open("rb") as file:
            file.seek(self.data_at)
            return file.read(self.length)


def read_log(log: Path) -> list[Entry]:
    """Every request, in order; a log that was cut off in the middle ends where it is whole."""
    entries = []
    size = log.stat().st_size
    with log.open("rb") as file:
        head = file.read(28)
        if len(head) < 28:
            raise BadLog(f"`{log}` has no superblock")
        magic, version, _, sector = struct.unpack("<QQQI", head)
        if magic != MAGIC or version != 1:
            raise BadLog(f"`{log}` is no log of writes: magic {magic:#x}, version {version}")
        at = sector
        while at + sector <= size:
            file.seek(at)
            where, count, flags, length = struct.unpack("<QQQQ", file.read(32))
            if flags & ~(FLUSH | FUA | DISCARD | MARK):
                raise BadLog(f"`{log}` has an entry with unknown flags {flags:#x} at {at}")
            if not (where or count or flags or length):
                break
            at += sector
            data_at = at
            # The length in bytes is that of a mark alone.
            amount = 0 if flags & MARK else count * sector
            if not flags & DISCARD:
                at += amount + (length + sector - 1) // sector * sector
            if at > size:
                break
            entries.append(Entry(where * sector, amount, flags, data_at, at, log))
    return entries


class Replay:
    """A disk that is taken to any point of its history; `cut(n, seed)` is the power cut after n requests."""

    def __init__(self, base: Path, entries: list[Entry], work: Path) -> None:
        self.entries, self.work, self._base = entries, work, base
        self._done = 0
        self._pending: list[int] = []
        self._applied: list[tuple[int, int]] = []
        self._writers: dict[tuple[int, int], list[int]] = {}
        self._begin()

    def _begin(self) -> None:
        run(["cp", "--sparse=always", "--reflink=auto", self._base, self.work])
        last = max((entry.offset + entry.length for entry in self.entries), default=0)
        if self.work.stat().st_size < last:
            with self.work.open("r+b") as file:
                file.truncate(last)
        self._done, self._pending = 0, []

    def _settle(self, count: int) -> None:
        """Applies what is durable after `count` requests."""
        if count < self._done:
            self._begin()
        with self.work.open("r+b") as file:
            for number in range(self._done, count):
                entry = self.entries[number]
                if entry.flags & FLUSH:
                    for earlier in self._pending:
                        _write(file, self.entries[earlier])
                    self._pending = []
                # A disk may keep what was discarded, so nothing changes; that it may also lose it is left out.
                if entry.length and not entry.flags & (MARK | DISCARD):
                    if entry.flags & FUA:
                        # Older pending writes to the same place must not come back over it.
                        self._pending = [old for old in self._pending if not _covers(entry, self.entries[old])]
                        _write(file, entry)
                    else:
                        self._pending.append(number)
        self._done = count

    @contextmanager
    def cut(self, count: int, seed: int) -> Iterator[Path]:
        """The disk after a power cut behind `count` requests; `seed` chooses what of the unflushed is there."""
        self._settle(count)
        undo: list[tuple[int, bytes]] = []
        pieces = list(chosen([self.entries[number] for number in self._pending], seed))
        with self.work.open("r+b") as file:
            for offset, data in pieces:
                file.seek(offset)
                undo.append((offset, file.read(len(data)).ljust(len(data), b"\0")))
                file.seek(offset)
                file.write(data)
        self._applied = [(offset, len(data)) for offset, data in pieces]
        try:
            yield self.work
        finally:
            self._applied = []
            with self.work.open("r+b") as file:
                for offset, data in reversed(undo):
                    file.seek(offset)
                    file.write(data)

    def state_of(self, offset: int, length: int) -> object:
        """Stands for what is in a range at present: the same answer means the same contents."""
        def inside(at: int, size: int) -> bool:
            return at < offset + length and offset < at + size

        if (offset, length) not in self._writers:
            self._writers[(offset, length)] = [
                number for number, entry in enumerate(self.entries)
                if entry.length and inside(entry.offset, entry.length)]
        pending = set(self._pending)
        durable = tuple(number for number in self._writers[(offset, length)]
                        if number < self._done and number not in pending)
        return len(durable), durable[-1:], tuple(piece for piece in self._applied if inside(*piece))

    def flushes(self) -> list[int]:
        """The points right after each flush."""
        return [number + 1 for number, entry in enumerate(self.entries) if entry.flags & FLUSH]

    def point_after(self, log_bytes: int) -> int:
        """The point at which everything is requested that was in the log when it was `log_bytes` long."""
        return sum(1 for entry in self.entries if entry.end <= log_bytes)


def chosen(pending: Iterable[Entry], seed: int) -> Iterator[tuple[int, bytes]]:
    """What of the unflushed writes reaches the disk: 0 none, 1 all, else a subset by chance, some of it torn."""
    if seed == 0:
        return
    dice = random.Random(seed)
    share = dice.choice([0.1, 0.5, 0.9])
    for entry in pending:
        whole = entry.data()
        fate = dice.random()
        if seed == 1:
            yield entry.offset, whole
        elif fate < share:
            sectors = entry.length // SECTOR
            if sectors > 1 and dice.random() < 0.3:
                cut = dice.randrange(1, sectors) * SECTOR
                yield entry.offset, whole[:cut]
            else:
                yield entry.offset, whole


def _covers(new: Entry, old: Entry) -> bool:
    return new.offset <= old.offset and old.offset + old.length <= new.offset + new.length


def _write(file: BinaryIO, entry: Entry) -> None:
    data = memoryview(entry.data())
    for at in range(0, len(data), 1 << 20):
        piece = data[at:at + (1 << 20)]
        file.seek(entry.offset + at)
        # A gigabyte of zeros over zeros, as file systems are made, leaves the file sparse.
        if file.read(len(piece)) != piece:
            file.seek(entry.offset + at)
            file.write(piece)
