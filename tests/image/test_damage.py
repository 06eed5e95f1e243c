"""A disk that has lost something: the box starts, or says at its door and on its screen what is wrong, and never
starts over and over."""

from pathlib import Path

from conftest import CHANNEL, wait_confirmed
from harness import disk, images
from harness.box import Box
from harness.recovery import in_recovery, log_in, wait_new
from harness.updates import status
from harness.waiting import wait_for


def damaged(settled: Box, make_box, image_a: images.Image, name: str) -> Box:
    """A box of its own, off, with the disk of one that worked until its power was cut."""
    box: Box = make_box(name, image_a.disk)
    box.take(settled)
    return box


def test_a_torn_partition_table_and_logs_in_disorder_are_mended_and_nothing_is_lost(settled: Box, make_box,
                                                                                    image_a: images.Image,
                                                                                    tmp_path: Path):
    box = damaged(settled, make_box, image_a, "torn")
    before = disk.tables(box.read_disk(tmp_path / "before.img"))
    assert len(before) == 2 and before[0] == before[1]
    # Half of the first copy is from another time, as after a power cut in the middle of it.
    box.patch_disk(512, b"\xff" * 512)
    box.patch_disk(1024, bytes(512))
    box.start()
    box.wait_answering()
    assert wait_for("the channel answers", lambda: box.api.channel("/image/echo", b'{"n": 1}').status == 200, 90)
    box.api.put("Channel", "later", {**CHANNEL, "url_path": "/later"})
    said = [line["message"] for line in box.api.journal(lines=20000, priority=7) if "XFS" in line["message"]]
    assert sum("Starting recovery" in line for line in said) >= 2, said
    wait_confirmed(box)
    box.stop()
    after = disk.tables(box.read_disk(tmp_path / "after.img"))
    assert after == before, "both copies of the table are whole again"


def test_a_state_beyond_repair_leads_to_the_recovery_page_and_a_reset_makes_the_box_new(settled: Box, make_box,
                                                                                       image_a: images.Image,
                                                                                       tmp_path: Path):
    box = damaged(settled, make_box, image_a, "damaged")
    where = disk.partitions(box.read_disk(tmp_path / "disk.img"))["state"]
    (tmp_path / "disk.img").unlink()
    box.spoil_disk(where.offset, where.size)
    box.start()
    why = in_recovery(box)
    print(f"in recovery: {why}")
    assert "`state` cannot be mounted" in why and "reset the box" in why, why
    # It stays there: nothing starts the box again and again.
    starts = box.serial().count("BdsDxe: starting")
    assert starts == 1, box.serial()
    log_in(box)
    now = status(box)
    assert now["boot"]["slot"] == "recovery" and now["boot"]["fell_back"] == why
    assert box.api.request("GET", "/v1/objects/Channel/image-echo").status >= 400
    box.mark_serial()
    box.api.call("POST", "/v1/system/factory-reset", {"hostname": now["hostname"]})
    wait_new(box)
    box.claim()
    new = status(box)
    assert new["boot"]["slot"] == "a" and new["version"] == images.VERSION_A, new["boot"]
    entries = box.api.get("/v1/system/blackbox")["entries"]
    assert any("`state` cannot be mounted" in entry["text"] for entry in entries), "the black box has kept it"
    assert any(entry["event"] == "factory_reset" for entry in entries)
