"""Fixtures: images, boxes, the LAN.

A box that a test leaves in a failure stays on disk: its folder stands in the failure, with the serial console,
QEMU's own output, the disk and the pcap file of the LAN.  `ARINT_IMAGE_LOGS` names the folder for all of them.
"""

import fcntl
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from harness import images  # noqa: E402
from harness.api import ApiError  # noqa: E402
from harness.box import Box  # noqa: E402
from harness.lan import Lan, Station  # noqa: E402

#: A service as an integrator writes it, with a channel that needs no password.
SERVICE = """
from zato.server.service import Service

class Echo(Service):
    name = 'image.echo'

    def handle(self):
        self.response.payload = {'echo': self.request.payload, 'pid': __import__('os').getpid()}
"""
CHANNEL = {"url_path": "/image/echo", "service": "image.echo", "data_format": "json"}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """One line per test with its time, and what a failure said: what CI shows while it waits."""
    if report.when == "call" or report.outcome != "passed":
        name = report.nodeid.split("/")[-1]
        print(f"\n[{time.strftime('%H:%M:%S')}] {report.outcome} {report.duration:6.1f} s  {name} ({report.when})",
              flush=True)
    if report.failed:
        print("\n".join(line for line in report.longreprtext.splitlines() if line.startswith(("E ", ">"))), flush=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Lets fixtures see whether the test failed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        item.session.stash[FAILED] = True
        item.stash[FAILED] = True


FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where the boxes of this run lie; it goes if all went well."""
    given = os.environ.get("ARINT_IMAGE_LOGS")
    made = Path(given) if given else Path(tempfile.mkdtemp(prefix="arint-image-"))
    made.mkdir(parents=True, exist_ok=True)
    yield made
    if not given and not request.session.stash.get(FAILED, False):
        shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def image_a() -> images.Image:
    """The image that boxes start with."""
    return images.image(images.VERSION_A, disk=True)


@pytest.fixture(scope="session")
def image_b() -> images.Image:
    """The next version, sound."""
    return images.image(images.VERSION_B)


def slug(request: pytest.FixtureRequest) -> str:
    """A folder's name for a test; short, as socket paths are limited to 107 bytes."""
    return request.node.name.removeprefix("test_").replace("[", "-").replace("]", "")[:40]


@pytest.fixture
def make_box(folder: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Box]]:
    """Makes boxes that are switched off when the test ends."""
    made: list[Box] = []

    def make(name: str, image: Path, **options: object) -> Box:
        box = Box(name, image, folder / slug(request) / name, **options)  # type: ignore[arg-type]
        made.append(box)
        return box

    yield make
    for box in made:
        box.power_cut()
        if not request.node.stash.get(FAILED, False):
            shutil.rmtree(box.folder, ignore_errors=True)
        else:
            print(f"everything of `{box.name}` lies in {box.folder}")


@pytest.fixture
def lan(folder: Path, request: pytest.FixtureRequest) -> Iterator[Lan]:
    """A virtual LAN of its own."""
    switch = Lan(folder / slug(request) / "lan")
    yield switch
    switch.close()


def settle(box: Box) -> None:
    """Claims a box and gives it a service with a channel."""
    box.claim()
    try:
        box.api.deploy("image_echo.py", SERVICE)
    except ApiError as err:
        # A worker that starts has half a minute, which a machine with many other things to do may not give it.
        if "not loaded after" not in err.message:
            raise
        box.api.deploy("image_echo.py", SERVICE)
    box.api.put("Channel", "image-echo", CHANNEL)


@pytest.fixture(scope="session")
def settled(folder: Path, image_a: images.Image) -> Box:
    """A claimed box with a service, confirmed and kept as a moment; tests go on from it with `box`."""
    shared = folder / "settled"
    shared.mkdir(parents=True, exist_ok=True)
    with (folder / "settled.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        box = Box("settled", image_a.disk, shared)
        note = shared / "box.pickle"
        if note.exists():
            box.api.token, box.api.pinned = pickle.loads(note.read_bytes())
            return box
        box.start()
        settle(box)
        wait_confirmed(box)
        box.keep_moment()
        note.write_bytes(pickle.dumps((box.api.token, box.api.pinned)))
        return box


def wait_confirmed(box: Box, seconds: float = 180) -> None:
    """Waits until the slot is confirmed by function."""
    from harness.waiting import wait_for

    wait_for(f"`{box.name}` is confirmed", lambda: box.api.get("/v1/system/status")["boot"]["confirmed"], seconds, 1)


@pytest.fixture
def box(settled: Box, make_box: Callable[..., Box], image_a: images.Image) -> Box:
    """A settled box of this test alone, running."""
    mine = make_box("settled", image_a.disk)
    mine.wake(settled)
    return mine
