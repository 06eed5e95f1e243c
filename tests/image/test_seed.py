"""A box that is set up by a file, because nobody sits at it: what is taken, once, and what is refused, in words."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import disk, images, seeds
from harness.api import PASSWORD, ApiError
from harness.box import Box
from harness.tools import run
from harness.waiting import wait_for

GOOD = f'[admin]\nuser = "anna"\none_time_password = "{PASSWORD}"\n'


@pytest.fixture(scope="module")
def used(folder: Path) -> dict[str, Path]:
    """What the first test leaves for the second: a medium that another box used up."""
    return {"folder": folder}


def login(box: Box, user: str, password: str) -> None:
    """Logs in as somebody."""
    box.api.token = None
    box.api.token = box.api.call("POST", "/v1/login", {"user": user, "password": password})["token"]


def test_a_box_is_set_up_by_the_seed_of_the_guide_on_a_partition_of_its_disk(
        make_box: Callable[..., Box], image_a: images.Image, tmp_path: Path, used: dict[str, Path]):
    text = seeds.example()
    said = tomllib.loads(text)
    flashed = seeds.with_partition(image_a.disk, tmp_path / "flashed.img", text)
    # Its port has the name of the example, and it is reached only at the address of the example.
    box: Box = make_box("seeded", flashed, uplink=False)
    address = said["network"]["interfaces"][0]["addresses"][0].split("/")[0]
    network = f"user,id=uplink,restrict=on,net=192.0.2.0/24,host=192.0.2.1,dhcpstart=192.0.2.15," \
              f"hostfwd=tcp:127.0.0.1:{box.api.port}-{address}:8183"
    box.more = ["-device", "pcie-root-port,id=rp0,chassis=1", "-netdev", network,
                "-device", "virtio-net-pci,netdev=uplink,bus=rp0"]
    box.start()
    box.wait_answering()
    wait_for("the box belongs to its admin", lambda: box.api.get("/v1/claim")["claimed"], 120)
    login(box, said["admin"]["user"], said["admin"]["one_time_password"])
    status = wait_for("the box has its name", lambda: named(box, said["system"]["hostname"]), 60)
    assert status["clock"]["timezone"] == said["system"]["timezone"]
    spec = box.api.get("/v1/objects/System/default")["spec"]
    assert spec["ntp"] == said["system"]["ntp"]
    network_now = box.api.get("/v1/system/network")
    assert network_now["trial"] is None, "nobody is there to confirm it"
    assert [link["name"] for link in network_now["links"] if f"{address}/24" in link["addresses"]] == \
        [said["network"]["interfaces"][0]["name"]]
    # The receipt comes when the certificate for the new name and address is there.
    applied = f"seed `{said['id']}` applied"
    wait_for("the seed is used up", lambda: [entry for entry in box.api.get("/v1/system/blackbox")["entries"]
                                             if applied in entry["text"]], 120)
    assert not any(said["admin"]["one_time_password"] in str(line) for line in box.api.journal(lines=20000, priority=7))
    info = box.api.get("/v1/claim")
    box.stop()

    # The medium has a receipt, and no password any more.
    raw = box.read_disk(tmp_path / "disk.img")
    place = disk.partitions(raw)[seeds.LABEL]
    assert seeds.files(raw, place.offset) == {seeds.RECEIPT}
    receipt = tomllib.loads(seeds.read(raw, seeds.RECEIPT, place.offset))
    assert receipt["box"] == said["system"]["hostname"] and receipt["seed"] == said["id"]
    assert receipt["applied"] == f"admin {said['admin']['user']}, system, network" and "error" not in receipt
    assert (receipt["fingerprint"], receipt["key"]) == (info["fingerprint"], info["key"])
    stick = used["folder"] / "used.img"
    run(["dd", f"if={raw}", f"of={stick}", f"skip={place.offset}", f"count={place.size}",
         "iflag=skip_bytes,count_bytes", "bs=1M", "status=none"])
    used["stick"] = stick
    raw.unlink()


def named(box: Box, name: str) -> dict[str, object] | None:
    """The status, once the box is called so."""
    status = box.api.get("/v1/system/status")
    return status if status["hostname"] == name else None


def test_what_is_no_seed_for_this_box_is_refused_in_one_sentence_and_a_signed_one_is_taken(
        make_box: Callable[..., Box], image_a: images.Image, tmp_path: Path, used: dict[str, Path]):
    box: Box = make_box("unseeded", image_a.disk)
    box.start()
    box.wait_answering()
    signed = seeds.sign(GOOD, tmp_path)
    wrong = seeds.medium(tmp_path / "wrong.img", GOOD.replace("one_time", "onetime"))
    tries = [
        (wrong, False, "unknown field `onetime_password`"),
        (seeds.medium(tmp_path / "unsigned.img", GOOD), True,
         "the medium with `arint-seed.toml` cannot be written, so the file would not be used up; sign it, or use a "
         "medium that can be written"),
        (seeds.medium(tmp_path / "forged.img", GOOD.replace("anna", "eve"), signature=signed), False,
         "`arint-seed.toml.sig` does not fit `arint-seed.toml` and the key of this image; sign it again"),
    ]
    if "stick" in used:
        tries.append((used["stick"], False,
                      "the seed on this medium was used up by the box `press-2`; write `arint-seed.toml` to it again "
                      "for this one"))
    sentences = []
    for stick, read_only, sentence in tries:
        box.plug(stick, read_only=read_only)
        info = wait_for(f"it says why: {sentence}", lambda: refused(box, sentence), 90)
        box.unplug()
        sentences.append(info["seed_refused"])
        assert info["claimed"] is False
        assert "\n" not in info["seed_refused"]
    assert tomllib.loads(seeds.read(wrong, seeds.RECEIPT))["error"] in sentences[0]
    assert seeds.FILE in seeds.files(wrong), "a seed that was refused is not used up"
    box.wait_serial(sentences[-1], 60)

    # Read-only and signed: taken.
    good = seeds.medium(tmp_path / "signed.img", GOOD, signature=signed)
    box.plug(good, read_only=True)
    wait_for("the box belongs to its admin", lambda: box.api.get("/v1/claim")["claimed"], 120)
    box.unplug()
    assert "seed_refused" not in box.api.get("/v1/claim"), "what was wrong before concerns nobody any more"
    login(box, "anna", PASSWORD)
    assert seeds.files(good) == {seeds.FILE, f"{seeds.FILE}.sig"}
    text = "\n".join(str(line["message"]) + str(line) for line in box.api.journal(lines=20000, priority=7))
    notes = "\n".join(entry["text"] for entry in box.api.get("/v1/system/blackbox")["entries"])
    for sentence in sentences:
        assert sentence in notes, sentence
        assert sentence.removeprefix("seed not applied: ")[:60] in text, sentence

    # A claimed box takes none, and says nothing about it.
    eve = GOOD.replace("anna", "eve")
    box.plug(seeds.medium(tmp_path / "late.img", eve, signature=seeds.sign(eve, tmp_path)))
    box.api.put("Channel", "still-annas", {"url_path": "/x", "service": "x.y", "data_format": "json"})
    with pytest.raises(ApiError) as err:
        login(box, "eve", PASSWORD)
    assert err.value.status == 401


def refused(box: Box, sentence: str) -> dict[str, str] | None:
    """What a stranger is told, once the sentence is in it."""
    info = box.api.get("/v1/claim")
    return info if sentence in info.get("seed_refused", "") else None
