"""Updates: from A to B and back, and every way in which one can go wrong.

Each test goes on from the same kept moment: a claimed box with a service, confirmed in slot A.
"""

import io
import json
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from conftest import CHANNEL, settle, wait_confirmed
from harness import bundles, disk, images
from harness.api import ApiError
from harness.arctl import arctl
from harness.box import Box
from harness.lan import Lan
from harness.ranges import NEIGHBOURS, Files, own_certificate, serving
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


def undone(box: Box, variant: str, reasons: list[str]) -> str:
    """Installs a version that does not work; gives the reason that the box tells for going back."""
    bad = images.image(images.VERSION_BAD, variant)
    before = status(box)
    assert install(box, bad.bundle)[0]["state"] == "installed"
    why = fallen_back(box, before)
    print(f"{variant}: {why}")
    assert images.VERSION_BAD in why, why
    assert any(reason in why for reason in reasons), why
    assert status(box)["version"] == images.VERSION_A
    still_works(box)
    return why


def test_versions_that_do_not_work_fall_back_one_after_the_other_and_say_why(box: Box):
    box.api.put("Channel", "before-update", {**CHANNEL, "url_path": "/before"})
    undone(box, "broken-unit", ["arsrv"])
    # What the bad version may have written is not what the old one goes on with.
    assert box.api.get("/v1/objects/Channel/before-update")["name"] == "before-update"
    why = undone(box, "failing-probe", ["channel"])
    code, out, err = arctl(box, "system", "why")
    assert code == 0 and why in out, out + err
    assert "\n" not in out.strip(), "one sentence"
    slots = {slot["slot"]: slot for slot in box.api.get("/v1/system/update")["slots"]}
    assert slots["b"]["state"] == "bad" and slots["a"]["primary"], slots
    floor = box.api.get("/v1/system/update")["floor"]
    assert floor == images.VERSION_A, "a version that was never confirmed raises nothing"


def test_a_start_that_hangs_falls_back_and_says_why(box: Box):
    undone(box, "hanging-start", ["arint-hang.service"])


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
    """Damages what was installed: the kernel or its RAM file system on the ESP, or a block of the root."""
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
    # Behind the start of it, which firmware and kernel look at before they believe the rest.
    at = uki.index(sections[f".{what}"][:4096]) + 8192
    # Found again on the disk by its bytes: the ESP is a file system of 1 KiB clusters.
    piece = uki[at:at + 512]
    with raw.open("rb") as file:
        file.seek(where["esp"].offset)
        whole = file.read(where["esp"].size)
    spots = [where["esp"].offset + spot for spot in every(whole, piece)]
    assert spots
    # The copy that was written last is that of the slot: the one in front is the slot's that runs.
    box.patch_disk(spots[-1] // 512 * 512, b"\x0f\x0b" * (64 * 512))


def every(whole: bytes, piece: bytes) -> Iterator[int]:
    """Every place of `piece`."""
    at = whole.find(piece)
    while at >= 0:
        yield at
        at = whole.find(piece, at + 1)


def pull_the_plug_while_the_firmware_is_dead(box: Box) -> None:
    """What a person does, or a watchdog that the firmware has: nothing of ours runs before the kernel."""
    for _ in range(3):
        box.wait_serial("!!!! X64 Exception Type", 240)
        box.restart()


@pytest.mark.parametrize("what", ["linux", "initrd", "root"])
def test_a_slot_that_rots_after_the_installation_falls_back_and_says_why(other: Box, tmp_path: Path, what: str):
    damaged(other, tmp_path, what)
    other.start()
    if what == "linux":
        pull_the_plug_while_the_firmware_is_dead(other)
    why = fallen_back(other, {"boot": {"boot_id": ""}})
    print(f"{what}: {why}")
    assert images.VERSION_B in why or "slot b" in why.lower() or "`b`" in why, why
    still_works(other)


def streamed(box: Box, url: str) -> dict[str, Any]:
    """Installs from an address; gives how it ended."""
    started = time.monotonic()
    last = install(box, url=url, reboot=False)[0]
    print(f"{last['state']} after {time.monotonic() - started:.0f} s: {last['error'] or last['message']}")
    return last


def untouched(box: Box) -> None:
    """The slot that runs is what starts next, and the box does its work."""
    slots = {slot["slot"]: slot for slot in box.api.get("/v1/system/update")["slots"]}
    assert slots["a"]["booted"] and slots["a"]["primary"] and slots["a"]["state"] == "good", slots
    assert box.api.channel("/image/echo", b'{"n": 4}').status == 200


def test_a_bundle_is_streamed_and_what_cannot_be_fetched_is_told(make_box, settled: Box, image_a: images.Image,
                                                                 image_b: images.Image, tmp_path: Path):
    box: Box = make_box("settled", image_a.disk, online=True)
    box.wake(settled)
    certificate = own_certificate(tmp_path)

    class Poor(Files):
        ranges = False

    with serving(image_b.folder, Poor) as shop:
        ended = streamed(box, f"{shop}/bundle.raucb")
        assert ended["state"] == "failed" and "range" in ended["error"], ended
        ended = streamed(box, f"{shop}/nothing.raucb")
        assert ended["state"] == "failed" and "404" in ended["error"], ended
    with serving(image_b.folder, Files, certificate) as shop:
        ended = streamed(box, f"{shop}/bundle.raucb")
        assert ended["state"] == "failed" and "certificate" in ended["error"], ended
    bundles.tampered(image_b.bundle, tmp_path / "tampered.raucb")
    with serving(tmp_path, Files) as shop:
        ended = streamed(box, f"{shop}/tampered.raucb")
        assert ended["state"] == "failed" and "damaged" in ended["error"], ended

    class Lost(Files):
        sent = 0
        cut_at, drops = 1 << 20, 1 << 30

    with serving(image_b.folder, Lost) as shop:
        ended = streamed(box, f"{shop}/bundle.raucb")
        assert ended["state"] == "failed", ended
        assert "fetch" in ended["error"] or "broke off" in ended["error"], ended
    untouched(box)

    # The second try works, even though the line is lost for a moment; and from a neighbour, whose certificate nobody
    # has signed.
    class Shaky(Files):
        sent = 0
        cut_at, drops = 1 << 20, 2

    with serving(image_b.folder, Shaky, certificate) as shop:
        ended = streamed(box, f"{shop}{NEIGHBOURS}")
    assert ended["state"] == "installed", ended
    assert Shaky.drops == 0, "the line was lost"
    whole = image_b.bundle.stat().st_size
    print(f"fetched {ended['fetched_bytes'] >> 10} KiB of {whole >> 10} KiB; the server sent {Shaky.sent >> 10} KiB")
    assert 0 < ended["fetched_bytes"] < whole / 2, "what the box has already is not fetched"
    assert Shaky.sent < whole / 2
    assert "MiB" in ended["message"], "the status says how much was fetched"
    anew = sum("once more" in str(line["message"]) for line in box.api.journal(unit="aros.service", lines=500))
    print(f"begun anew {anew} times because the device was gone")
    slots = {slot["slot"]: slot for slot in box.api.get("/v1/system/update")["slots"]}
    assert slots["b"]["primary"] and slots["b"]["version"] == images.VERSION_B, slots


def test_a_box_whose_data_is_full_is_reached_and_updated_by_url(make_box, image_a: images.Image, image_b: images.Image):
    # So small that `data` has hardly more than it must.
    box: Box = make_box("full", image_a.disk, disk_gib=3.3, online=True)
    box.start()
    settle(box)
    wait_confirmed(box)
    print(fill(box))
    with pytest.raises(ApiError, match="no room for the bundle in `/data"):
        box.api.upload(image_b.bundle)
    still_works(box)
    before = status(box)

    class Counted(Files):
        sent = 0

    with serving(image_b.folder, Counted) as shop:
        seen = install(box, url=f"{shop}/bundle.raucb")
        assert seen[0]["state"] == "installed", seen[0]
        print(f"fetched {Counted.sent >> 10} KiB: {seen[0]['message']}")
        confirmed_in(box, before, "b")
    assert json.loads(box.api.channel("/image/echo", b'{"n": 3}').body)["echo"] == {"n": 3}


def fill(box: Box) -> str:
    """Fills `data` with wheels, until no megabyte fits any more; gives how many there are and what the box said."""
    said, size, number = "", 64 << 20, 0
    while size >= 1 << 20:
        wheel = io.BytesIO()
        with zipfile.ZipFile(wheel, "w") as file:
            about = f"filler{number}-1.dist-info"
            file.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: filler{number}\nVersion: 1\n")
            file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr(f"filler{number}/data", bytes(size))
            file.writestr(f"{about}/RECORD", "")
        raw = wheel.getvalue()
        path = f"/v1/packages/wheels/filler{number}-1-py3-none-any.whl"
        answer = box.api.request("PUT", path, raw=raw, length=len(raw), timeout=300)
        if answer.status < 300:
            number += 1
            continue
        said = answer.json()["message"]
        assert "no room left for the wheel" in said, said
        size //= 2
    return f"{number} wheels, then: {said}"


def test_a_box_takes_its_update_from_the_next_one(make_box, lan: Lan, image_a: images.Image, image_b: images.Image):
    one, two = (make_box(name, image_a.disk, lan=lan.port(name), memory=384) for name in ("one", "two"))
    for box in (one, two):
        box.start()
    for box in (one, two):
        box.claim()
    for box in (one, two):
        wait_confirmed(box)
    ended = install(one, image_b.bundle, reboot=False)[0]
    assert ended["state"] == "installed", ended
    host = str(status(one)["hostname"])
    ended = streamed(two, f"https://{host}.local:8183{NEIGHBOURS}")
    assert ended["state"] == "installed" and ended["version"] == images.VERSION_B, ended
    # Another name for it is not what its certificate says, so that nobody can stand in for it by name alone.
    slots = {slot["slot"]: slot for slot in two.api.get("/v1/system/update")["slots"]}
    assert slots["b"]["primary"] and slots["b"]["version"] == images.VERSION_B, slots
