"""A stick with the installer: which disk it writes, which it leaves alone, and what starts afterwards.

The stick and the installed disk lie in one machine all the while, as they do on a bench.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import wait_confirmed
from harness import disk, images, seeds
from harness.api import PASSWORD
from harness.box import BOOT_SECONDS, Box
from harness.tools import run
from harness.updates import status
from harness.waiting import wait_for

#: Writing and checking some hundred megabytes under software emulation.
INSTALL_SECONDS = 600


@pytest.fixture(scope="module")
def installer() -> images.Image:
    """The image with the installer's disk."""
    return images.image(images.VERSION_A, name="installer", parts=("installer",))


def stick_of(installer: images.Image, tmp_path: Path, seed: str | None = None) -> Path:
    """A stick of this test alone."""
    stick = tmp_path / "stick.img"
    run(["cp", "--sparse=always", installer.installer, stick])
    if seed is not None:
        seeds.write(stick, seeds.FILE, seed.encode(), disk.partitions(stick)["esp"].offset)
    return stick


def blank(path: Path, gib: int = 4) -> Path:
    """A disk as it comes from the shop."""
    with path.open("wb") as file:
        file.truncate(gib << 30)
    return path


def digest(path: Path, place: disk.Partition) -> str:
    """What is in a partition."""
    with path.open("rb") as file:
        file.seek(place.offset)
        return hashlib.file_digest(_Part(file, place.size), "sha256").hexdigest()  # type: ignore[arg-type]


class _Part:
    """The next bytes of a file, as `hashlib.file_digest` reads them."""

    def __init__(self, file: object, size: int) -> None:
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        read = self._file.read(min(len(buffer), self._left))  # type: ignore[attr-defined]
        buffer[:len(read)] = read
        self._left -= len(read)
        return len(read)


def test_a_person_installs_to_the_disk_of_his_choice_and_the_box_starts_from_it_with_the_stick_still_in(
        make_box: Callable[..., Box], installer: images.Image, tmp_path: Path):
    precious = tmp_path / "precious.img"
    with precious.open("wb") as file:
        file.truncate(5 << 30)
        file.write(b"somebody's data" * 1000)
    stick = stick_of(installer, tmp_path, '[install]\ndisk = "vdb"\n')
    box: Box = make_box("installed", blank(tmp_path / "blank.img"), sticks=[stick], disks=[precious])
    box.start()
    said = box.wait_serial("Type the name of the disk: ", BOOT_SECONDS)
    assert "on `vdb` is something else, and `arint-seed.toml` on the stick does not say `erase = true`, so nothing is " \
           "written" in said
    listed = re.findall(r"^  (\S+) +(\S+ [MGT]B)  (empty|not empty|a box's system)", said, re.MULTILINE)
    assert listed == [("vda", "8.6 GB", "empty"), ("vdb", "5.4 GB", "not empty")], "its own disks, and not the stick"

    # A disk with something on it is given up with a second word only.
    box.mark_serial()
    box.type("vdb\n")
    box.wait_serial("Type `erase` to lose it", 60)
    box.type("yes\n")
    box.wait_serial("Nothing was written.", 60)
    box.wait_serial("Type the name of the disk: ", 60)
    box.mark_serial()
    box.type("sda\n")
    box.wait_serial("There is no disk `sda`.", 60)
    box.mark_serial()
    box.type("vda\n")
    said = box.wait_serial("Installed.  Take the stick out", INSTALL_SECONDS)
    assert "writing: 100 %" in said and "checking: 100 %" in said
    with precious.open("rb") as file:
        assert file.read(15000) == b"somebody's data" * 1000
    before = {label: digest(stick, place) for label, place in disk.partitions(stick).items()}

    # It starts from its own disk, although the stick with the same partitions is in.
    box.mark_serial()
    box.type("\n")
    box.claim()
    wait_confirmed(box)
    first = status(box)
    assert {entry["device"] for entry in first["disks"]} == {"/dev/vda"}, first["disks"]
    events = [entry["event"] for entry in box.api.get("/v1/system/blackbox")["entries"]]
    assert "confirmed" in events, "the black box is the disk's, not the stick's"
    after = {label: digest(stick, place) for label, place in disk.partitions(stick).items()}
    assert after == before, "nothing on the stick has changed"
    box.stop()

    # And without the stick it is the same box.
    box.sticks = []
    box.start()
    box.wait_answering()
    again = wait_for("the box answers with its status", lambda: status(box), 60)
    assert (again["hostname"], again["fingerprint"]) == (first["hostname"], first["fingerprint"])
    assert again["boot"]["slot"] == "a"
    box.power_cut()
    raw = box.read_disk(tmp_path / "disk.img")
    assert not identifiers(raw) & identifiers(stick), "stick and disk are told apart"
    raw.unlink()


def identifiers(path: Path) -> set[str]:
    """Those of the disk and of its ESP."""
    with path.open("rb") as file:
        file.seek(512 + 56)
        own = file.read(16).hex()
        file.seek(1024 + 16)
        return {own, file.read(16).hex()}


def test_a_stick_with_a_seed_installs_by_itself_and_the_box_sets_itself_up(
        make_box: Callable[..., Box], installer: images.Image, tmp_path: Path):
    seed = f'[install]\ndisk = "vda"\nerase = true\n[admin]\nuser = "anna"\none_time_password = "{PASSWORD}"\n' \
           f'[system]\nhostname = "press-9"\n'
    stick = stick_of(installer, tmp_path, seed)
    earlier = tmp_path / "earlier.img"
    with blank(earlier).open("r+b") as file:
        file.write(b"an earlier system" * 1000)
    box: Box = make_box("unattended", earlier, sticks=[stick])
    box.start()
    try:
        box.wait_off(BOOT_SECONDS + INSTALL_SECONDS)
    except AssertionError as err:
        raise box.complaint(err) from None
    assert "Type the name of the disk" not in box.serial()
    esp = disk.partitions(stick)["esp"].offset
    assert seeds.FILE not in seeds.files(stick, esp), "a seed without a signature is for one box"

    box.sticks = []
    box.start()
    box.wait_answering()
    wait_for("the box belongs to its admin", lambda: box.api.get("/v1/claim")["claimed"], 120)
    box.api.token = box.api.call("POST", "/v1/login", {"user": "anna", "password": PASSWORD})["token"]
    wait_for("the box has its name", lambda: status(box)["hostname"] == "press-9", 60)
    box.stop()
    raw = box.read_disk(tmp_path / "disk.img")
    esp = disk.partitions(raw)["esp"].offset
    assert {seeds.FILE, seeds.TAKEN}.isdisjoint(seeds.files(raw, esp))
    assert 'applied = "admin anna, system"' in seeds.read(raw, seeds.RECEIPT, esp)
    raw.unlink()
