"""What is left when neither slot starts: the recovery system, from which a box is made whole again."""

from pathlib import Path

from conftest import wait_confirmed
from harness import disk, images
from harness.api import CODE
from harness.box import BOOT_SECONDS, Box
from harness.recovery import wait_new
from harness.updates import INSTALL_SECONDS, confirmed_in, status
from harness.waiting import Impatient, wait_for


def in_recovery(box: Box) -> str:
    """Waits until the recovery system answers, and logs in there with the code on the screen; gives why it runs."""

    def why() -> str | None:
        said = box.api.get("/v1/claim").get("recovery")
        return str(said) if said else None

    try:
        reason = wait_for("the recovery system answers", why, BOOT_SECONDS)
        code = wait_for("the code on the serial console", lambda: CODE.findall(box.serial()), 60)[-1]
    except Impatient as err:
        raise box.complaint(err) from None
    box.api.token = None
    box.api.token = box.api.call("POST", "/v1/login", {"user": "recovery", "password": code})["token"]
    return reason


def test_a_box_whose_slots_are_broken_says_why_in_recovery_and_is_repaired_there_by_a_bundle(
        box: Box, image_b: images.Image, tmp_path: Path):
    before = status(box)
    wait_for("the recovery partition is filled", lambda: filled(box), 240, 2)
    box.stop()
    raw = box.read_disk(tmp_path / "disk.img")
    slot = disk.partitions(raw)["slot-a"]
    raw.unlink()
    # What a dying disk does: the slot's first blocks, and its tree, are something else.
    box.patch_disk(slot.offset, b"\xa5" * (1 << 20))
    token = box.api.token

    box.start()
    why = in_recovery(box)
    print(f"why: {why}")
    assert "slot a" in why and "root" in why, why
    now = status(box)
    assert now["boot"]["slot"] == "recovery"
    # Its key was read from `state`: the pinned certificate held, and the name is the one its admin knows.
    assert (now["hostname"], now["fingerprint"]) == (before["hostname"], before["fingerprint"])
    assert box.api.get("/v1/claim")["node"] == before["hostname"]
    assert not any("new for this start" in problem for problem in now["problems"]), now["problems"]
    for path in ("/v1/objects/Channel/image-echo", "/v1/tokens"):
        refused = box.api.request("GET", path)
        assert refused.status == 503 and "this is the recovery system" in refused.json()["message"], refused.body
    entries = box.api.get("/v1/system/blackbox")["entries"]
    assert any(entry["event"] == "first_stage_failed" for entry in entries), entries

    # A bundle of a stranger is refused there too; ours repairs the box.
    box.api.upload(image_b.bundle)
    box.api.call("POST", "/v1/system/update/install", {"reboot": False}, timeout=120)

    def ended() -> dict[str, object] | None:
        install = box.api.get("/v1/system/update")["install"]
        return install if install and install["state"] != "running" else None

    install = wait_for("the installation ends", ended, INSTALL_SECONDS, 1)
    assert install["state"] == "installed", install
    written = next(slot["slot"] for slot in box.api.get("/v1/system/update")["slots"] if slot["primary"])
    box.mark_serial()
    box.api.call("POST", "/v1/system/power", {"action": "reboot"})
    # Until it goes, the recovery system answers, which does not know who is logged in on the box.
    box.wait_serial("BdsDxe: starting")
    box.api.token = token
    after = confirmed_in(box, now, written)
    assert after["version"] == images.VERSION_B
    assert (after["hostname"], after["fingerprint"]) == (before["hostname"], before["fingerprint"])
    # What the box was for is all there.
    answer = wait_for("the channel answers", lambda: box.api.channel("/image/echo", b'{"n": 1}'), 60)
    assert answer.status == 200, answer.body


def filled(box: Box) -> bool:
    """Whether the black box says that the recovery partition was filled."""
    return any("recovery system filled" in entry["text"] for entry in box.api.get("/v1/system/blackbox")["entries"])


def test_an_admin_enters_recovery_and_comes_back_and_what_cannot_be_read_there_is_said(box: Box):
    before = status(box)
    token, pinned = box.api.token, box.api.pinned
    box.mark_serial()
    box.api.call("POST", "/v1/system/power", {"action": "recovery"})
    wait_for("the box stops", lambda: "first stage" in box.serial() or not answers(box), 120)
    why = in_recovery(box)
    assert why == "an admin asked for it"
    now = status(box)
    assert (now["hostname"], now["fingerprint"]) == (before["hostname"], before["fingerprint"])
    box.mark_serial()
    box.api.call("POST", "/v1/system/power", {"action": "power_off"})
    box.wait_off(180)

    # `state` is gone for good: the box says so, and is reached all the same.
    raw = box.read_disk(box.folder / "raw.img")
    where = disk.partitions(raw)
    raw.unlink()
    # Every copy of its superblock: with one of them left it would be repaired, and be empty.
    for at in range(0, where["state"].size, 256 << 20):
        box.patch_disk(where["state"].offset + at, b"\x5a" * (1 << 20))
    box.start()
    box.api.pinned = None
    in_recovery(box)
    lost = status(box)
    assert lost["fingerprint"] != before["fingerprint"]
    said = [problem for problem in lost["problems"] if "new for this start" in problem]
    assert said and said[0].startswith("name, key and certificate are new for this start, because the box's own cannot "
                                       "be read: "), lost["problems"]
    print(said[0])
    # Only a reset is left, and it can be made from here.
    box.mark_serial()
    box.api.call("POST", "/v1/system/factory-reset", {"hostname": lost["hostname"]})
    wait_new(box)
    box.claim()
    wait_confirmed(box)
    assert pinned != box.api.pinned and token != box.api.token


def answers(box: Box) -> bool:
    """Whether it answers at once."""
    try:
        return box.api.request("GET", "/v1/claim", timeout=3).status == 200
    except OSError:
        return False
