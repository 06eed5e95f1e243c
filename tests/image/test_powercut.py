"""Power cuts: at every point of a first start, of an update and of normal writes there is a box that starts, with
everything that was acknowledged.

One life of a box is recorded with every request to its disk.  Then its disk is rebuilt as many cuts would have left
it (see `harness.powercut`), and judged: most of them without a start, by what firmware, boot loader and first stage
would find; a few by really starting them.  `ARINT_POWER_CUTS` and `ARINT_POWER_CUT_BOOTS` set how many; a soak
takes thousands.
"""

import os
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conftest import CHANNEL, settle, wait_confirmed
from harness import disk, images, powercut
from harness.box import Box
from harness.tools import run
from harness.updates import confirmed_in, install, status

CUTS = int(os.environ.get("ARINT_POWER_CUTS", "150"))
STATES = int(os.environ.get("ARINT_POWER_CUT_STATES", "25"))
BOOTS = int(os.environ.get("ARINT_POWER_CUT_BOOTS", "2"))
SEED = int(os.environ.get("ARINT_POWER_CUT_SEED", "20260101"))


@dataclass
class Life:
    """A recorded life: the disk it began with, every write, and when what was acknowledged."""

    base: Path
    log: Path
    folder: Path
    token: str | None = None
    pinned: str | None = None
    #: Length of the log at the acknowledgement, and the name of the channel.
    acknowledged: list[tuple[int, str]] = field(default_factory=list)
    #: Length of the log at the end of each phase.
    phases: dict[str, int] = field(default_factory=dict)


@pytest.fixture(scope="module")
def life(folder: Path, image_a: images.Image, image_b: images.Image) -> Iterator[Life]:
    """First start, claim, changes, update to B, changes: with every write kept."""
    place = folder / "life"
    place.mkdir()
    log = place / "writes.log"
    log.touch()
    box = Box("life", image_a.disk, place / "box", write_log=log, disk_gib=4)
    box.start()
    recorded = Life(place / "base.img", log, place)

    def change(name: str) -> None:
        box.api.put("Channel", name, {**CHANNEL, "url_path": f"/{name}"})
        recorded.acknowledged.append((box.disk_writes(), name))

    try:
        settle(box)
        recorded.phases["first start"] = box.disk_writes()
        for number in range(15):
            change(f"early-{number}")
        wait_confirmed(box)
        recorded.phases["normal writes"] = box.disk_writes()
        before = status(box)
        assert install(box, image_b.bundle)[0]["state"] == "installed"
        recorded.phases["installation"] = box.disk_writes()
        confirmed_in(box, before, "b")
        recorded.phases["start into B"] = box.disk_writes()
        for number in range(5):
            change(f"late-{number}")
        recorded.token, recorded.pinned = box.api.token, box.api.pinned
    except BaseException as err:
        raise box.complaint(AssertionError(str(err))) from err
    finally:
        box.power_cut()
    run(["cp", "--sparse=always", image_a.disk, recorded.base])
    with recorded.base.open("r+b") as file:
        file.truncate(4 << 30)
    yield recorded
    for path in (recorded.base, log, place / "cut.img"):
        path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def replay(life: Life) -> powercut.Replay:
    """The recorded life, to be cut anywhere."""
    entries = powercut.read_log(life.log)
    made = powercut.Replay(life.base, entries, life.folder / "cut.img")
    flushes = len(made.flushes())
    print(f"{len(entries)} requests, {flushes} flushes, {life.log.stat().st_size >> 20} MiB written")
    assert flushes > 50, "a box that never flushes keeps nothing"
    return made


def test_wherever_the_power_is_cut_there_is_a_version_that_starts(life: Life, replay: powercut.Replay,
                                                                   image_a: images.Image, image_b: images.Image):
    judge = disk.Judge({"a": image_a.uki, "b": image_b.uki})
    seen: dict[str, int] = {}
    faults = []
    records = 0
    for at, seed in points(life, replay, CUTS):
        with replay.cut(at, seed) as cut:
            try:
                version = judge.starts(cut, lambda part: replay.state_of(part.offset, part.size))
                seen[version] = seen.get(version, 0) + 1
                kept = disk.blackbox(cut)
                numbers = [int(str(record["seq"])) for record in kept]
                assert numbers == list(range(1, len(numbers) + 1)), "the black box lost a record"
            except AssertionError as err:
                faults.append(f"cut after request {at} of {len(replay.entries)}, seed {seed}: {err}")
                continue
            if seed == 0:
                assert len(kept) >= records, "the black box forgot a record"
                records = len(kept)
    print(f"{CUTS} cuts: {seen}")
    assert faults == [], f"{len(faults)} of {CUTS} cuts leave nothing that starts"
    assert seen.keys() == {images.VERSION_A, images.VERSION_B}, "cuts before and after the update were tried"


def points(life: Life, replay: powercut.Replay, count: int) -> list[tuple[int, int]]:
    """Cuts over the whole life, a share of them for each phase, as the phases differ in length a hundredfold."""
    ends = [replay.point_after(end) for end in life.phases.values()] + [len(replay.entries)]
    found: list[tuple[int, int]] = []
    begin = 0
    for number, end in enumerate(ends):
        dice = random.Random(SEED + number)
        flushes = [point for point in replay.flushes() if begin <= point <= end]
        for _ in range(count // len(ends)):
            if flushes and dice.random() < 0.5:
                at = min(max(dice.choice(flushes) + dice.choice([-1, 0, 1]), begin), end)
            else:
                at = dice.randint(begin, end)
            found.append((at, dice.choice([0, 1, dice.randrange(2, 1 << 30), dice.randrange(2, 1 << 30)])))
        begin = end
    return sorted(found)


def test_what_was_acknowledged_is_in_the_store_after_any_later_cut(life: Life, replay: powercut.Replay):
    if os.getuid() != 0:
        # Mounting a file system from a file needs root; without it the cuts that are started show the same.
        assert BOOTS > 0
        return
    faults = []
    looked = 0
    for at, seed in points(life, replay, STATES):
        due = {name for end, name in life.acknowledged if replay.point_after(end) <= at}
        if not due:
            continue
        with replay.cut(at, seed) as cut:
            try:
                with disk.mounted(cut, "state", life.folder) as state:
                    missing = due - channels(state)
                looked += 1
                if missing:
                    faults.append(f"cut after request {at}, seed {seed}: {sorted(missing)} are lost")
            except Exception as err:
                faults.append(f"cut after request {at}, seed {seed}: {err}")
    print(f"{looked} cuts behind the first acknowledgement")
    assert looked >= STATES // 3
    assert faults == []


def channels(state: Path) -> set[str]:
    """The channels in the object store, with its journal recovered."""
    files = list(state.glob("lib/arint/arclst/objects.sqlite"))
    assert files, f"no object store in {sorted(path.name for path in state.iterdir())}"
    with sqlite3.connect(files[0]) as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0] for row in store.execute("SELECT name FROM object WHERE kind = 'Channel'")}


@pytest.mark.parametrize("number", range(BOOTS))
def test_a_box_starts_after_a_cut_with_everything_that_was_acknowledged(life: Life, replay: powercut.Replay, make_box,
                                                                        number: int):
    phases = list(life.phases.values())
    # One within the installation or the start into B, the next anywhere behind the first acknowledgement.
    if number % 2 == 0:
        low, high = replay.point_after(phases[1]), replay.point_after(phases[3])
    else:
        low, high = replay.point_after(phases[0]), len(replay.entries)
    dice = random.Random(SEED * 7 + number)
    at, seed = dice.randint(low, high), dice.randrange(2, 1 << 30)
    print(f"cut after request {at} of {len(replay.entries)}, seed {seed}")
    with replay.cut(at, seed) as cut:
        box: Box = make_box("life", cut, disk_gib=4)
        box.api.token, box.api.pinned = life.token, life.pinned
        box.start()
        box.wait_answering()
        for end, name in life.acknowledged:
            if replay.point_after(end) <= at:
                assert box.api.get(f"/v1/objects/Channel/{name}")["name"] == name
        wait_confirmed(box, 400)
        assert status(box)["version"] in (images.VERSION_A, images.VERSION_B)
        box.power_cut()
