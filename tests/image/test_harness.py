"""The harness itself: what it measures with has to be right first.  No image is booted here."""

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import powercut, starting
from harness.box import Box
from harness.lan import Lan, Rule, Station
from harness.tools import run
from harness.waiting import wait_for

LISTEN = """
import json, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 7)); s.settimeout(float(sys.argv[1]))
open(sys.argv[2], "w").close()
got = []
try:
    while True:
        got.append(s.recv(100).decode())
        s.settimeout(1)
except TimeoutError: print(json.dumps(got))
"""
SEND = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(int(sys.argv[2])): s.sendto(str(n).encode(), (sys.argv[1], 7))
print("null")
"""


@pytest.fixture
def two(tmp_path):
    """Two stations on one LAN."""
    lan = Lan(tmp_path / "lan", seed=4)
    one, two = Station(lan, "one", ("10.9.0.1/24",)), Station(lan, "two", ("10.9.0.2/24",))
    yield lan, one, two
    one.close()
    two.close()
    lan.close()


def arrived(sender: Station, receiver: Station, address: str, count: int, tmp_path: Path) -> list[str]:
    """What of `count` datagrams arrives within three seconds."""
    bound = tmp_path / f"bound-{os.urandom(4).hex()}"
    with ThreadPoolExecutor() as pool:
        heard = pool.submit(receiver.python, LISTEN, "3", str(bound))
        wait_for("the listener is there", bound.exists, 20, 0.05)
        sender.python(SEND, address, str(count))
        return list(heard.result())


def test_frames_pass_until_one_direction_is_cut_and_again_once_it_is_healed(two, tmp_path):
    lan, one, other = two
    assert arrived(one, other, "10.9.0.2", 5, tmp_path) == ["0", "1", "2", "3", "4"]
    lan.between("one", "two", Rule(cut=True), one_way=True)
    assert arrived(one, other, "10.9.0.2", 5, tmp_path) == []
    lan.heal()
    lan.partition({"one"}, {"two"})
    assert arrived(other, one, "10.9.0.1", 5, tmp_path) == []
    lan.heal()
    assert len(arrived(other, one, "10.9.0.1", 5, tmp_path)) == 5


def test_the_same_seed_loses_and_doubles_the_same_frames(tmp_path):
    runs = []
    for seed in (11, 11, 12):
        lan = Lan(tmp_path / f"lan{len(runs)}", seed=seed)
        got: list[bytes] = []
        lan.port("one"), lan.port("two")
        lan._deliver = lambda target, frame, got=got: got.append(frame) if target == "two" else None
        lan.between("one", "two", Rule(drop=0.3, duplicate=0.3), one_way=True)
        for number in range(200):
            lan._switch("one", b"\xff" * 6 + bytes([2, 0, 0, 0, 0, 1]) + bytes([8, 0, number]))
        lan.close()
        runs.append(got)
    assert runs[0] == runs[1] != runs[2]
    assert 110 < len(set(runs[0])) < 170 and len(runs[0]) > len(set(runs[0])) + 20


def log_of(tmp_path: Path, entries: list[tuple[int, int, bytes]]) -> Path:
    """A write log as QEMU writes it: (sector, flags, data)."""
    path = tmp_path / "writes.log"
    with path.open("wb") as file:
        file.write(struct.pack("<QQQI", powercut.MAGIC, 1, len(entries), 512).ljust(512, b"\0"))
        for sector, flags, data in entries:
            file.write(struct.pack("<QQQQ", sector, len(data) // 512, flags, 0).ljust(512, b"\0"))
            file.write(data)
    return path


def block(byte: int) -> bytes:
    """One sector full of one byte."""
    return bytes([byte]) * 512


def test_a_cut_keeps_what_was_flushed_and_any_part_of_what_was_not(tmp_path):
    log = log_of(tmp_path, [(0, 0, block(1)), (1, 0, block(2)), (0, powercut.FLUSH, b""), (0, 0, block(3)),
                            (2, 0, block(4)), (5, powercut.FUA, block(6))])
    base = tmp_path / "base.img"
    base.write_bytes(bytes(512 * 8))
    replay = powercut.Replay(base, powercut.read_log(log), tmp_path / "cut.img")
    seen = set()
    for seed in range(40):
        with replay.cut(5, seed) as disk:
            data = disk.read_bytes()
            assert data[512:1024] == block(2), "what was flushed is there"
            seen.add((data[0], data[1024]))
    assert seen == {(1, 0), (3, 0), (1, 4), (3, 4)}
    with replay.cut(6, 1) as disk:
        assert disk.read_bytes()[5 * 512:6 * 512] == block(6), "a write with FUA is durable by itself"
    with replay.cut(3, 1) as disk:
        assert disk.read_bytes()[:1024] == block(1) + block(2), "a replay can go back"
    assert base.read_bytes() == bytes(512 * 8)


def test_a_write_can_be_torn_between_its_sectors(tmp_path):
    log = log_of(tmp_path, [(0, 0, block(1) + block(2) + block(3) + block(4))])
    base = tmp_path / "base.img"
    base.write_bytes(bytes(512 * 4))
    replay = powercut.Replay(base, powercut.read_log(log), tmp_path / "cut.img")
    shapes = set()
    for seed in range(60):
        with replay.cut(1, seed) as disk:
            shapes.add(bytes(disk.read_bytes()[::512]))
    assert bytes(4) in shapes and bytes([1, 2, 3, 4]) in shapes and bytes([1, 2, 0, 0]) in shapes


def test_the_log_of_a_real_qemu_is_read(tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    log = tmp_path / "writes.log"
    log.touch()
    options = (f"driver=blklogwrites,file.driver=file,file.filename={disk},"
               f"log.driver=file,log.filename={log}")
    run(["qemu-io", "--image-opts", options, "-c", "write -P 7 4096 8192", "-c", "flush", "-c", "write -P 9 0 512",
         "-c", "discard 65536 4096"])
    entries = powercut.read_log(log)
    written = [(entry.offset, entry.length, entry.flags & powercut.DISCARD) for entry in entries if entry.length]
    assert (4096, 8192, 0) in written and (0, 512, 0) in written and (65536, 4096, powercut.DISCARD) in written
    flush = next(number for number, entry in enumerate(entries) if entry.flags & powercut.FLUSH)
    assert written.index((4096, 8192, 0)) < flush
    os.unlink(disk)
    base = tmp_path / "base.img"
    base.write_bytes(bytes(1 << 20))
    with powercut.Replay(base, entries, tmp_path / "cut.img").cut(flush + 1, 3) as cut:
        assert cut.read_bytes()[4096:12288] == b"\7" * 8192


@pytest.mark.parametrize(("code", "speaks"), [
    # jmp $
    (b"\xeb\xfe", False),
    # mov dx, 0x3f8; mov al, 'A'; say: out dx, al; xor cx, cx; loop $; jmp say
    (b"\xba\xf8\x03\xb0A\xee\x31\xc9\xe2\xfe\xeb\xf9", True),
], ids=["silent", "speaking"])
def test_firmware_that_hangs_is_reset_and_firmware_that_speaks_is_left_alone(tmp_path, monkeypatch, code, speaks):
    monkeypatch.setattr(starting, "SECONDS", 1)
    firmware, image = tmp_path / "firmware", tmp_path / "disk.img"
    firmware.write_bytes(bytes(0xFFF0) + code.ljust(16, b"\0"))
    image.write_bytes(bytes(1 << 20))
    box = Box("firmware", image, tmp_path / "box", memory=32, cpus=1, uboot=firmware)
    box.start()
    try:
        watch = box.watch
        if speaks:
            wait_for("the firmware speaks", lambda: "A" in box.serial(), 20)
            box.reset()
            wait_for("and again", lambda: "A" in box.serial() and watch.started, 20)
            assert watch.resets == 0
        else:
            wait_for("it is reset, and again", lambda: watch.resets >= 2, 60)
            assert not watch.started and box.serial() == ""
    finally:
        box.power_cut()
    assert not watch.is_alive()
