"""A box that U-Boot starts, as a Raspberry Pi is: U-Boot's own UEFI runs systemd-boot, and all else is as on every box.

The bench image is started here by Debian's build of U-Boot for QEMU's PC.
"""

from pathlib import Path

from conftest import wait_confirmed
from harness import disk, images
from harness.box import Box
from harness.uboot import for_uboot, uboot
from harness.updates import confirmed_in, fallen_back, install, status
from test_update import damaged


def test_under_u_boot_a_slot_is_counted_confirmed_updated_and_left_when_its_kernel_does_not_start(
        make_box, image_a: images.Image, image_b: images.Image, tmp_path: Path):
    box: Box = make_box("uboot", for_uboot(image_a.disk, tmp_path / "image.img"), uboot=uboot())
    box.start()
    box.claim()
    assert "U-Boot" in box.serial(everything=True), "nothing else has started it"
    wait_confirmed(box)
    before = status(box)
    assert before["boot"]["slot"] == "a"

    # B, whose kernel rots before its first start: only what runs before the kernel can count that.
    assert install(box, image_b.bundle, reboot=False)[0]["state"] == "installed"
    box.api.call("POST", "/v1/system/power", {"action": "power_off"})
    box.wait_off(120)
    damaged(box, tmp_path, "kernel")
    box.start()
    why = fallen_back(box, before)
    print(f"u-boot: {why}")
    assert images.VERSION_B in why or "slot b" in why.lower() or "`b`" in why, why
    box.stop()
    left = {entry.slot: entry.left for entry in disk.Esp(box.read_disk(tmp_path / "disk.img")).entries()}
    assert (left["a"], left["b"]) == (None, 0), "U-Boot renamed the entry once for each try"

    # A sound B is confirmed by function.
    box.start()
    box.wait_answering()
    before = status(box)
    assert install(box, image_b.bundle)[0]["state"] == "installed"
    assert confirmed_in(box, before, "b")["version"] == images.VERSION_B
