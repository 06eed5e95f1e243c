"""Updates: from A to B and back, and every way in which one can go wrong.

Each test goes on from the same kept moment: a claimed box with a service, confirmed in slot A.
"""

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from conftest import CHANNEL, settle, wait_confirmed
from harness import bundles, disk, images
from harness.api import ApiError
from harness.arctl import arctl
from harness.box import Box
from harness.ranges import Files
from harness.updates import confirmed_in, fallen_back, install, status
from harness.waiting import wait_for


def still_works(box: Box) -> None:
    """What was deployed before answers, and the store takes changes."""
    assert wait_for("the channel answers", lambda: box.api.channel("/image/echo", b'{"n": 2}').status == 200, 90)
    box.api.put("Channel", "later", {**CHANNEL, "url_path": "/later"})


def test_it_updates_to_b_and_back_to_a_and_refuses_to_go_down(box: Box, image_b: images.Image):
    before = status(box)
    assert (before["boot"]["slot"], before["version"]) == ("a", images.VERSION_A)
    box.api.put("Channel", "before-update", {**CHANNEL, "url_path": "/before"})
    seen = install(box, image_b.bundle)
    assert seen[0]["state"] == "installed", seen[0]
    assert seen[0]["version"] == images.VERSION_B
    percents = [state["percent"] for state in reversed(seen)]
    assert percents == sorted(percents) and len(set(percents)) >= 3, percents
    after = confirmed_in(box, before, "b")
    assert after["version"] == images.VERSION_B
    assert after["hostname"] == before["hostname"] and after["fingerprint"] == before["fingerprint"]
    assert after["failed_units"] == []
    assert box.api.get("/v1/objects/Channel/before-update")["name"] == "before-update"
    still_works(box)
    slots = {slot["slot"]: slot for slot in box.api.get("/v1/system/update")["slots"]}
    assert slots["b"]["booted"] and slots["b"]["primary"] and slots["b"]["state"] == "good"
    assert slots["a"]["version"] == images.VERSION_A

    # The next one goes into the slot that is free again.
    # As an admin does it, with one command that waits for the verdict.
    last = images.image(images.VERSION_LAST)
    code, out, progress = arctl(box, "update", "install", str(last.bundle), "--wait")
    assert code == 0, out + progress
    assert f"runs {images.VERSION_LAST}" in out + progress, out + progress
    assert "%" in progress + out, "progress is shown"
    again = confirmed_in(box, after, "a")
    assert again["version"] == images.VERSION_LAST
    still_works(box)

    # Down only if it is said.
    reason = refused(box, image_b.bundle)
    assert images.VERSION_B in reason and ("downgrade" in reason or "lower" in reason or "older" in reason), reason
    assert install(box, image_b.bundle, allow_downgrade=True, reboot=False)[0]["state"] == "installed"


def refused(box: Box, bundle: Path) -> str:
    """The reason why a bundle is not taken, wherever it is told."""
    try:
        seen = install(box, bundle, reboot=False)
    except ApiError as err:
        assert 400 <= err.status < 500, err
        return err.message
    assert seen[0]["state"] == "failed", seen[0]
    return str(seen[0]["error"])


def test_what_is_not_a_sound_bundle_for_this_box_is_refused_with_the_reason(box: Box, image_b: images.Image,
                                                                             tmp_path: Path):
    good = image_b.bundle
    keys = images.keys()
    reason = refused(box, bundles.tampered(good, tmp_path / "tampered.raucb"))
    assert any(word in reason for word in ("changed", "damaged", "corrupt", "hash", "verity", "integrity")), reason
    reason = refused(box, bundles.resigned(good, tmp_path / "stranger.raucb", *bundles.stranger(tmp_path)))
    assert "sign" in reason or "certificate" in reason, reason
    own = partial(bundles.resigned, good, certificate=keys / "bundle.crt", key=keys / "bundle.key")
    other = own(tmp_path / "board.raucb", change=lambda text: text.replace("generic-x86_64", "generic-toaster"))
    reason = refused(box, other)
    assert "toaster" in reason, reason
    old = own(tmp_path / "old.raucb", change=lambda text: text.replace(images.VERSION_B, "0.1.2"))
    reason = refused(box, old)
    assert "0.1.2" in reason and images.VERSION_A in reason, reason
    junk = tmp_path / "junk.raucb"
    junk.write_bytes(b"this is no bundle" * 5000)
    assert refused(box, junk)
    # Nothing of it has touched what starts next.
    slots = {slot["slot"]: slot for slot in box.api.get("/v1/system/update")["slots"]}
    assert slots["a"]["primary"] and slots["a"]["state"] == "good"
    still_works(box)


@pytest.mark.parametrize(
    ("variant", "reasons"),
    [
        ("broken-unit", ["arsrv"]),
        ("failing-probe", ["channel"]),
        ("hanging-start", ["time", "confirm", "hang", "did not"]),
    ],
)
def test_a_version_that_does_not_work_falls_back_and_says_why(box: Box, variant: str, reasons: list[str]):
    bad = images.image(images.VERSION_BAD, variant)
    before = status(box)
    assert install(box, bad.bundle)[0]["state"] == "installed"
    why = fallen_back(box, before)
    print(f"{variant}: {why}")
    assert images.VERSION_BAD in why, why
    assert any(reason in why for reason in reasons), why
    assert status(box)["version"] == images.VERSION_A
    still_works(box)


@pytest.fixture(scope="module")
def installed(folder: Path, settled: Box, image_a: images.Image, image_b: images.Image) -> Box:
    """A box that has B installed and is off, before its first start into it."""
    box = Box("settled", image_a.disk, folder / "installed")
    box.wake(settled)
    assert install(box, image_b.bundle, reboot=False)[0]["state"] == "installed"
    box.api.call("POST", "/v1/system/power", {"action": "power_off"})
    box.wait_off(120)
    return box


@pytest.fixture
def other(installed: Box, make_box, image_a: images.Image) -> Box:
    """A copy of it that may be damaged."""
    box: Box = make_box("settled", image_a.disk)
    for name in ("disk.qcow2", "vars.qcow2"):
        (box.folder / name).write_bytes((installed.folder / name).read_bytes())
    box.api.token = installed.api.token
    box.api.pinned = installed.api.pinned
    return box


def damaged(box: Box, tmp_path: Path, what: str) -> None:
    """Damages what was installed: the kernel on the ESP, or a block of the root."""
    raw = box.read_disk(tmp_path / "disk.img")
    esp = disk.Esp(raw)
    new = esp.entries()[0]
    assert new.slot == "b", "what was installed starts next"
    where = disk.partitions(raw)
    if what == "root":
        # The first block: the superblock of erofs.
        box.patch_disk(where["slot-b"].offset + 4096, b"\xa5" * 4096)
        box.patch_disk(where["slot-b"].offset, b"\xa5" * 4096)
        return
    uki = esp.read(new.uki)
    sections = disk.sections(uki)
    at = uki.index(sections[".linux"][:4096]) if what == "kernel" else 0
    # Found again on the disk by its bytes: the ESP is a file system of 1 KiB clusters.
    piece = uki[at + 8192:at + 8192 + 512]
    with raw.open("rb") as file:
        file.seek(where["esp"].offset)
        whole = file.read(where["esp"].size)
    spots = [where["esp"].offset + spot for spot in every(whole, piece)]
    assert spots
    for spot in spots if what == "kernel-all" else spots[-1:]:
        box.patch_disk(spot // 512 * 512, b"\x0f\x0b" * (64 * 512))


def every(whole: bytes, piece: bytes) -> Iterator[int]:
    """Every place of `piece`."""
    at = whole.find(piece)
    while at >= 0:
        yield at
        at = whole.find(piece, at + 1)


@pytest.mark.parametrize("what", ["kernel", "root"])
def test_a_slot_that_rots_after_the_installation_falls_back_and_says_why(other: Box, tmp_path: Path, what: str):
    damaged(other, tmp_path, what)
    other.start()
    why = fallen_back(other, {"boot": {"boot_id": ""}})
    print(f"{what}: {why}")
    assert images.VERSION_B in why or "slot b" in why.lower() or "`b`" in why, why
    still_works(other)


@pytest.fixture
def shop(image_b: images.Image) -> Iterator[str]:
    """A web server with the bundle of B, as the box reaches it."""
    Files.sent = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(image_b.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://10.0.2.2:{server.server_address[1]}"
    server.shutdown()


def test_a_box_whose_data_is_full_is_reached_and_updated_by_url(make_box, image_a: images.Image, shop: str):
    # So small that `data` has hardly anything.
    box: Box = make_box("full", image_a.disk, disk_gib=3, online=True)
    box.start()
    settle(box)
    wait_confirmed(box)
    junk = b"\xff" * (200 << 20)
    with pytest.raises((ApiError, ConnectionError)) as err:
        for _ in range(3):
            box.api.call("PUT", "/v1/system/update/bundle", raw=junk, length=len(junk), timeout=300)
    if isinstance(err.value, ApiError):
        assert any(word in err.value.message for word in ("room", "full", "space")), err.value.message
    before = status(box)
    seen = install(box, url=f"{shop}/bundle.raucb")
    assert seen[0]["state"] == "installed", seen[0]
    print(f"fetched {Files.sent >> 10} KiB")
    confirmed_in(box, before, "b")
    assert json.loads(box.api.channel("/image/echo", b'{"n": 3}').body)["echo"] == {"n": 3}
