"""A box in a stranger's hands: Secure Boot with keys of ours, and a disk that opens only under its own TPM."""

import re
import shutil
from pathlib import Path

import pytest

from conftest import CHANNEL, wait_confirmed
from harness import bundles, disk, enrolled, images
from harness.api import CODE
from harness.box import BOOT_SECONDS, Box
from harness.recovery import in_recovery, log_in
from harness.tools import firmware, run
from harness.updates import confirmed_in, install, status
from harness.waiting import wait_for


@pytest.fixture(scope="module")
def secure_vars(folder: Path, image_a: images.Image) -> Path:
    """Firmware that trusts our keys alone."""
    return enrolled.variables(images.keys(), folder / "secure.fd")


@pytest.fixture(scope="module")
def own(folder: Path, image_a: images.Image) -> Box:
    """A box with a TPM, whose keys an admin has enrolled from the boot menu before its first start; off."""
    # Firmware that can do Secure Boot and has no keys yet: in setup mode.
    box = Box("own", image_a.disk, folder / "own", tpm=True, secure_vars=firmware(secure=True)[1], disk_gib=4)
    box.start()
    try:
        enrol(box)
        box.claim()
        box.api.put("Channel", "image-echo", CHANNEL)
        wait_confirmed(box)
        box.stop()
    except AssertionError as err:
        raise err if "serial console" in str(err) else box.complaint(err) from None
    finally:
        box.power_cut()
    return box


def enrol(box: Box) -> None:
    """What the flashing guide says: hold a key for the boot menu, and choose the keys."""
    entry = "Enroll Secure Boot keys: arint"

    def menu() -> bool:
        box.type(" ")
        return entry in box.serial()

    wait_for("the boot menu offers the keys", menu, 120, 0.1)
    # To the last line of the menu.
    box.type("\x1b[F")
    box.type("\r")
    wait_for("the keys are enrolled and the box starts again",
             lambda: box.serial().count("BdsDxe: starting") >= 2, 120)


def test_with_keys_enrolled_from_the_menu_it_starts_encrypted_and_takes_updates(own: Box, make_box,
                                                                               image_a: images.Image,
                                                                               image_b: images.Image, tmp_path: Path):
    raw = own.read_disk(tmp_path / "disk.img")
    where = disk.partitions(raw)
    for label in ("state", "data"):
        with raw.open("rb") as file:
            file.seek(where[label].offset)
            assert file.read(6) == b"LUKS\xba\xbe", f"`{label}` is not encrypted"
    raw.unlink()
    box = taken(own, make_box("own", image_a.disk, tpm=True, secure_vars=own.secure_vars, disk_gib=4))
    # The second start opens it without anybody's help.
    box.start()
    box.wait_answering()
    before = status(box)
    assert before["secure_boot"] is True and before["encrypted"] is True
    assert install(box, image_b.bundle)[0]["state"] == "installed"
    after = confirmed_in(box, before, "b")
    # Another kernel image and another root, and the TPM still gives the key.
    assert after["encrypted"] is True and after["fingerprint"] == before["fingerprint"]
    assert box.api.get("/v1/objects/Channel/image-echo")["name"] == "image-echo"

    # A reset destroys the keys: what is on the disk then is encrypted with others.
    old = luks_ids(box, tmp_path)
    box.api.call("POST", "/v1/system/factory-reset", {"hostname": after["hostname"]})
    box.api.pinned = box.api.token = None
    box.mark_serial()
    wait_for("a new code on the serial console", lambda: CODE.search(box.serial()), BOOT_SECONDS)
    box.claim()
    new = status(box)
    assert new["encrypted"] is True and new["fingerprint"] != before["fingerprint"]
    box.stop()
    assert not luks_ids(box, tmp_path) & old


def taken(kept: Box, box: Box) -> Box:
    """Another box with the disk, the variables and the TPM of one that is off."""
    box.take(kept)
    shutil.copytree(kept.folder / "tpm", box.folder / "tpm")
    return box


def luks_ids(box: Box, work: Path) -> set[bytes]:
    """The identifiers of the encrypted partitions on the disk."""
    raw = box.read_disk(work / "luks.img")
    where = disk.partitions(raw)
    found = set()
    with raw.open("rb") as file:
        for label in ("state", "data"):
            file.seek(where[label].offset + 168)
            found.add(file.read(40))
    raw.unlink()
    return found


@pytest.mark.parametrize("what", ["another TPM", "no TPM", "Secure Boot off"])
def test_a_disk_opens_nowhere_but_in_its_box_and_the_box_says_why(own: Box, make_box, image_a: images.Image, what: str):
    secure = None if what == "Secure Boot off" else own.secure_vars
    box: Box = make_box("thief", image_a.disk, tpm=what != "no TPM", secure_vars=secure, disk_gib=4)
    taken(own, box)
    if what != "Secure Boot off":
        shutil.rmtree(box.folder / "tpm")
    else:
        box.variables.unlink()
    box.start()
    why = in_recovery(box)
    print(f"{what}: {why}")
    assert "TPM" in why and "cannot unlock `state`" in why and "reset the box" in why, why
    wait_for("the screen says it too", lambda: "cannot unlock `state`" in box.serial(), 60)
    log_in(box)
    assert status(box)["boot"]["slot"] == "recovery"
    assert box.api.request("GET", "/v1/objects/Channel/image-echo").status >= 400


def test_a_kernel_image_that_was_tampered_with_is_refused_under_secure_boot(make_box, secure_vars: Path,
                                                                            image_a: images.Image, tmp_path: Path):
    box: Box = make_box("tampered", image_a.disk, secure_vars=secure_vars, disk_gib=4)
    box.prepare()
    where = disk.partitions(image_a.disk)["esp"]
    with image_a.disk.open("rb") as file:
        file.seek(where.offset)
        whole = file.read(where.size)
    # One word of the command line, as somebody would who wants a root of his own; in every image on the ESP.
    found = [match.end() for match in re.finditer(b"arint\\.root=(?=[0-9a-f])", whole)]
    assert len(found) >= 2, "the slot's and the recovery system's"
    for spot in found:
        at = spot // 512 * 512
        sector = bytearray(whole[at:at + 512])
        sector[spot % 512] ^= 1
        box.patch_disk(where.offset + at, bytes(sector))
    refused(box)


def test_a_boot_loader_with_a_strangers_signature_is_refused_under_secure_boot(make_box, secure_vars: Path,
                                                                               image_a: images.Image, tmp_path: Path):
    copy = tmp_path / "stranger.img"
    run(["cp", "--sparse=always", image_a.disk, copy])
    esp = f"{copy}@@{disk.partitions(copy)['esp'].offset}"
    loader = tmp_path / "loader.efi"
    run(["mcopy", "-i", esp, "::/EFI/BOOT/BOOTX64.EFI", loader])
    run(["sbattach", "--remove", loader])
    certificate, key = bundles.stranger(tmp_path)
    run(["sbsign", "--key", key, "--cert", certificate, "--output", loader, loader])
    run(["mcopy", "-o", "-i", esp, loader, "::/EFI/BOOT/BOOTX64.EFI"])
    refused(make_box("stranger", copy, secure_vars=secure_vars, disk_gib=4))


def refused(box: Box) -> None:
    """Starts it, and sees that the firmware refuses."""
    box.start()
    try:
        said = wait_for("the firmware refuses it",
                        lambda: re.search(r"(?i).*(denied|violation|not authenticat).*", box.serial()), 180)
    except AssertionError as err:
        raise box.complaint(err) from None
    print(f"the firmware says: {said[0].strip()}")
    assert "arint.root" not in box.serial() and "systemd[1]" not in box.serial()
    box.power_cut()
