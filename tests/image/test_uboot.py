"""A box that U-Boot starts, as a Raspberry Pi is: U-Boot's own UEFI runs systemd-boot, and all else is as on every box.

The bench image is started here by Debian's build of U-Boot for QEMU's PC.
"""

from pathlib import Path

from conftest import wait_confirmed
from harness import disk, images
from harness.box import Box
from harness.tools import run
from harness.uboot import for_uboot, uboot
from harness.updates import status
from harness.waiting import wait_for


def test_under_u_boot_a_slot_is_confirmed_by_function(make_box, image_a: images.Image, tmp_path: Path):
    box: Box = make_box("uboot", for_uboot(image_a.disk, tmp_path / "image.img"), uboot=uboot())
    box.start()
    box.claim()
    assert "U-Boot" in box.serial(everything=True), "nothing else has started it"
    wait_confirmed(box)
    found = status(box)
    assert (found["boot"]["slot"], found["failed_units"]) == ("a", [])
    box.power_cut()
    raw = box.read_disk(tmp_path / "end.img")
    assert {entry.name for entry in disk.Esp(raw).entries()} == {"arint-000001-a.conf", "arint-000000-recovery.conf"}
    # The first stage knows the entry by what systemd-boot left in U-Boot's variables.
    started = [record["event"] for record in disk.blackbox(raw) if "started" in str(record["event"])]
    assert len(started) == 1 and "arint-000001-a" in str(started[0]), started


def test_under_u_boot_a_kernel_that_does_not_start_is_counted_out(make_box, image_a: images.Image, tmp_path: Path):
    image = for_uboot(image_a.disk, tmp_path / "image.img")
    uki = image_a.uki
    at = uki.index(disk.sections(uki)[".linux"][:4096]) + 8192
    (tmp_path / "broken.efi").write_bytes(uki[:at] + b"\x0f\x0b" * 32768 + uki[at + 65536:])
    run(["mcopy", "-o", "-i", f"{image}@@{disk.partitions(image)['esp'].offset}", tmp_path / "broken.efi",
         "::/EFI/arint/a-000001.efi"])
    box: Box = make_box("uboot", image, uboot=uboot())
    box.start()
    # Nothing is left but the recovery system, which has no tries to lose; its start is read from the disk of the
    # running box, as all that matters here is that it was chosen.
    raw = tmp_path / "now.img"

    def started() -> list[str]:
        run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", box.disk, raw])
        return [str(record["event"]) for record in disk.blackbox(raw) if "started" in str(record["event"])]

    found = wait_for("the first stage is started", started, 240, 5)
    box.power_cut()
    assert "arint-000000-recovery" in found[0], found
    assert box.serial(everything=True).count("## Application failed") == 3, "U-Boot got control back after each try"
    left = {entry.slot: entry.left for entry in disk.Esp(raw).entries()}
    assert left == {"a": 0, "recovery": None}, "systemd-boot renamed the entry through U-Boot, once for each try"
