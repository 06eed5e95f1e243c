"""A box in a stranger's hands: Secure Boot with keys of ours, and a disk that opens only under its own TPM."""

import re
import shutil
from pathlib import Path

import pytest

from conftest import settle
from harness import disk, enrolled, images
from harness.box import Box
from harness.updates import status
from harness.waiting import wait_for


@pytest.fixture(scope="module")
def secure_vars(folder: Path, image_a: images.Image) -> Path:
    """Firmware that trusts our keys alone."""
    return enrolled.variables(images.keys(), folder / "secure.fd")


def test_it_starts_under_secure_boot_and_its_disk_opens_under_its_own_tpm_alone(make_box, secure_vars: Path,
                                                                                image_a: images.Image, tmp_path: Path):
    box: Box = make_box("own", image_a.disk, tpm=True, secure_vars=secure_vars, disk_gib=4)
    box.start()
    settle(box)
    now = status(box)
    assert now["secure_boot"] is True
    assert now["encrypted"] is True
    box.api.put("Channel", "secret", {"url_path": "/secret", "service": "image.echo", "data_format": "json"})
    box.stop()
    raw = box.read_disk(tmp_path / "disk.img")
    where = disk.partitions(raw)
    for label in ("state", "data"):
        with raw.open("rb") as file:
            file.seek(where[label].offset)
            assert file.read(6) == b"LUKS\xba\xbe", f"`{label}` is not encrypted"
    raw.unlink()

    # The next start opens it without anybody's help.
    box.start()
    box.wait_answering()
    assert box.api.get("/v1/objects/Channel/secret")["name"] == "secret"
    box.power_cut()

    thief: Box = make_box("thief", image_a.disk, tpm=True, secure_vars=secure_vars, disk_gib=4)
    shutil.copyfile(box.disk, thief.disk)
    thief.start()
    try:
        text = wait_for("it says why it does not open", lambda: re.search(r".*TPM.*", thief.serial()), 300)
        print(f"in another machine: {text[0].strip()}")
    except AssertionError as err:
        raise thief.complaint(err) from None
    thief.api.pinned = None
    answer = None
    try:
        answer = thief.api.request("GET", "/v1/claim", timeout=10)
    except OSError:
        pass
    assert answer is None or b"own" not in answer.body


def test_a_kernel_image_that_was_tampered_with_is_refused_under_secure_boot(make_box, secure_vars: Path,
                                                                            image_a: images.Image, tmp_path: Path):
    box: Box = make_box("tampered", image_a.disk, secure_vars=secure_vars, disk_gib=4)
    box.prepare()
    where = disk.partitions(image_a.disk)["esp"]
    with image_a.disk.open("rb") as file:
        file.seek(where.offset)
        whole = file.read(where.size)
    # One word of the command line, as somebody would who wants a root of his own.
    spot = whole.index(b"arint.root=") + len(b"arint.root=")
    sector = bytearray(whole[spot // 512 * 512:spot // 512 * 512 + 512])
    sector[spot % 512] ^= 1
    box.patch_disk(where.offset + spot // 512 * 512, bytes(sector))
    box.start()
    try:
        said = wait_for("the boot loader refuses it",
                        lambda: re.search(r"(?i).*(denied|violation|not authenticat).*", box.serial()), 180)
    except AssertionError as err:
        raise box.complaint(err) from None
    print(f"the firmware says: {said[0].strip()}")
    assert "arint.root" not in box.serial() and "systemd[1]" not in box.serial()
