"""Power cuts: at every point of a first start, of an update and of normal writes there is a box that starts, with
everything that was acknowledged.

One life of a box is recorded with every request to its disk.  Then its disk is rebuilt as many cuts would have left
it (see `harness.powercut`), and judged: most of them without a start, by what firmware, boot loader and first stage
would find; a few by really starting them.  `ARINT_POWER_CUTS` and `ARINT_POWER_CUT_BOOTS` set how many; a soak
takes thousands.  `ARINT_POWER_CUT_LIFE` names a folder in which a life is kept, and taken from there the next time:
a cut can be looked at again only with the log it was found in.
"""

import json
import os
import pickle
import random
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conftest import CHANNEL, FAILED, settle, wait_confirmed
from harness import disk, images, powercut
from harness.box import Box
from harness.tools import Failed, run
from harness.updates import confirmed_in, install, status
from harness.waiting import wait_for

CUTS = int(os.environ.get("ARINT_POWER_CUTS", "150"))
STATES = int(os.environ.get("ARINT_POWER_CUT_STATES", "25"))
BOOTS = int(os.environ.get("ARINT_POWER_CUT_BOOTS", "2"))
SEED = int(os.environ.get("ARINT_POWER_CUT_SEED", "20260101"))
#: Writes to the key-value store, and tells which version of itself is deployed.
KEEPER = """
from zato.server.service import Service

class Keeper(Service):
    name = 'image.keeper'

    def handle(self):
        conn = self.kvdb.conn
        if write := self.request.payload.get('write'):
            conn.set(write, 'value of ' + write)
        read = self.request.payload.get('read')
        value = conn.get(read) if read else None
        self.response.payload = {'version': VERSION, 'value': value.decode() if isinstance(value, bytes) else value}

VERSION = %d
"""


@dataclass
class Life:
    """A recorded life: the disk it began with, every write, and when what was acknowledged."""

    base: Path
    log: Path
    folder: Path
    token: str | None = None
    pinned: str | None = None
    #: Length of the log at the acknowledgement; what it was (`channel`, `key`, `deployment`); its name or version.
    acknowledged: list[tuple[int, str, str]] = field(default_factory=list)
    #: Length of the log at the end of each phase.
    phases: dict[str, int] = field(default_factory=dict)

    def due(self, replay: powercut.Replay, at: int) -> dict[str, set[str]]:
        """What was acknowledged before the request `at`, by its kind."""
        found: dict[str, set[str]] = {"channel": set(), "key": set(), "deployment": set()}
        for end, kind, name in self.acknowledged:
            if replay.point_after(end) <= at:
                found[kind].add(name)
        return found


@pytest.fixture(scope="module")
def life(request: pytest.FixtureRequest, folder: Path, image_a: images.Image,
         image_b: images.Image) -> Iterator[Life]:
    """A life from the log of its writes; it goes when all went well, as it takes gigabytes."""
    kept = os.environ.get("ARINT_POWER_CUT_LIFE")
    place = Path(kept) if kept else folder / "life"
    note = place / "life.pickle"
    if note.exists():
        recorded = pickle.loads(note.read_bytes())
    else:
        place.mkdir(parents=True, exist_ok=True)
        recorded = record(place, image_a, image_b)
        note.write_bytes(pickle.dumps(recorded))
    yield recorded
    (place / "cut.img").unlink(missing_ok=True)
    if request.session.stash.get(FAILED, False):
        print(f"the life is kept in {place}; ARINT_POWER_CUT_LIFE={place} makes the same cuts again")
    elif not kept:
        shutil.rmtree(place, ignore_errors=True)


def record(place: Path, image_a: images.Image, image_b: images.Image) -> Life:
    """First start, claim, changes, update to B, changes: with every write kept."""
    log = place / "writes.log"
    log.touch()
    box = Box("life", image_a.disk, place / "box", write_log=log, disk_gib=4)
    box.start()
    recorded = Life(place / "base.img", log, place)

    def done(kind: str, name: str) -> None:
        recorded.acknowledged.append((box.disk_writes(), kind, name))

    def changes(era: str, count: int, version: int) -> None:
        for number in range(count):
            name = f"{era}-{number:02}"
            box.api.put("Channel", name, {**CHANNEL, "url_path": f"/{name}"})
            done("channel", name)
            box.api.channel("/keeper", json.dumps({"write": name}).encode()).json()
            done("key", name)
            if number % 5 == 4:
                version += 1
                box.api.deploy("image_keeper.py", KEEPER % version)
                done("deployment", str(version))

    try:
        settle(box)
        box.api.deploy("image_keeper.py", KEEPER % 1)
        box.api.put("Channel", "keeper", {**CHANNEL, "url_path": "/keeper", "service": "image.keeper"})
        keeps(box, "first")
        recorded.phases["first start"] = box.disk_writes()
        changes("early", 15, 1)
        wait_confirmed(box)
        recorded.phases["normal writes"] = box.disk_writes()
        before = status(box)
        assert install(box, image_b.bundle)[0]["state"] == "installed"
        recorded.phases["installation"] = box.disk_writes()
        confirmed_in(box, before, "b")
        recorded.phases["start into B"] = box.disk_writes()
        keeps(box, "second")
        changes("late", 5, 4)
        recorded.token, recorded.pinned = box.api.token, box.api.pinned
    except BaseException as err:
        raise box.complaint(AssertionError(str(err))) from err
    finally:
        box.power_cut()
    run(["cp", "--sparse=always", image_a.disk, recorded.base])
    with recorded.base.open("r+b") as file:
        file.truncate(4 << 30)
    return recorded


def keeps(box: Box, name: str) -> int:
    """Waits until the service that writes keys answers; gives its version."""
    def ask() -> int | None:
        answer = box.api.channel("/keeper", json.dumps({"write": name, "read": name}).encode())
        if answer.status != 200:
            return None
        said = answer.json()
        assert said["value"] == f"value of {name}", said
        return int(said["version"])

    return wait_for("the keeper answers", ask, 120)


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
        due = life.due(replay, at)
        if not due["channel"]:
            continue
        with replay.cut(at, seed) as cut:
            try:
                with disk.mounted(cut, "state", life.folder) as state:
                    missing = due["channel"] - channels(state)
                with disk.mounted(cut, "data", life.folder) as data:
                    missing |= due["key"] - keys(data, due["key"])
                    missing |= newest(due["deployment"]) - deployed(data, due["deployment"])
                looked += 1
                if missing:
                    faults.append(f"cut after request {at}, seed {seed}: {sorted(missing)} are lost")
            except (AssertionError, Failed, OSError, sqlite3.Error) as err:
                faults.append(f"cut after request {at}, seed {seed}: {err}")
    print(f"{looked} cuts behind the first acknowledgement")
    assert faults == []
    assert looked >= STATES // 3


def channels(state: Path) -> set[str]:
    """The channels in the object store, with its journal recovered."""
    files = list(state.glob("lib/arint/arclst/objects.sqlite"))
    assert files, f"no object store in {sorted(path.name for path in state.iterdir())}"
    # `with sqlite3.connect(…)` alone would leave it open, and the file system busy.
    with closing(sqlite3.connect(files[0])) as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {row[0] for row in store.execute("SELECT name FROM object WHERE kind = 'Channel'")}


def keys(data: Path, due: set[str]) -> set[str]:
    """Those of the keys whose values are in the key-value store's log or picture."""
    found: set[str] = set()
    for path in (data / "arkvd").glob("*.sqlite"):
        with closing(sqlite3.connect(path)) as store:
            assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    for path in (data / "arkvd").iterdir():
        if path.is_file():
            whole = path.read_bytes()
            found |= {name for name in due if f"value of {name}".encode() in whole}
    return found


def newest(versions: set[str]) -> set[str]:
    """The version that was deployed last: those before it may be gone."""
    return {max(versions, key=int)} if versions else set()


def deployed(data: Path, due: set[str]) -> set[str]:
    """The version that is due, if the modules of it or of a later one lie there whole."""
    last = max((int(version) for version in due), default=0)
    for path in (data / "arsrv").rglob("image_keeper.py"):
        text = path.read_text()
        found = re.search(r"VERSION = (\d+)\n\Z", text)
        if found and int(found[1]) >= last and text == KEEPER % int(found[1]):
            return {str(last)}
    return set()


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
        due = life.due(replay, at)
        for name in due["channel"]:
            assert box.api.get(f"/v1/objects/Channel/{name}")["name"] == name
        version = keeps(box, "after-the-cut")
        assert version >= max((int(version) for version in due["deployment"]), default=1)
        for name in due["key"]:
            answer = box.api.channel("/keeper", json.dumps({"read": name}).encode()).json()
            assert answer["value"] == f"value of {name}", answer
        wait_confirmed(box, 400)
        assert status(box)["version"] in (images.VERSION_A, images.VERSION_B)
        box.power_cut()
