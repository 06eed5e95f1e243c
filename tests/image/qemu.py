"""`make qemu`: boxes to work with, on this machine, without root.

Prints the name of each, where its console answers and where its serial console is logged; Ctrl-C switches all of them off.
Their disks are kept, so that the next start goes on; `NEW=1` begins with factory-fresh boxes.
Several boxes (`BOXES=3`) share a virtual LAN, on which they find each other.
"""

import argparse
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from harness import images  # noqa: E402
from harness.api import CODE  # noqa: E402
from harness.box import Box  # noqa: E402
from harness.lan import Lan  # noqa: E402


def arguments() -> argparse.Namespace:
    """What the Makefile passes on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, default=1)
    parser.add_argument("--memory", type=int, default=512, help="MiB for each")
    parser.add_argument("--disk", type=int, default=8, help="GiB for each")
    parser.add_argument("--image", type=Path, help="a disk image; default: the bench image, built if needed")
    parser.add_argument("--tpm", action="store_true", help="with a TPM: state and data are encrypted")
    parser.add_argument("--new", action="store_true", help="forget the disks of the last time")
    parser.add_argument("--seconds", type=int, help="end by itself after so long")
    return parser.parse_args()


def report(box: Box) -> None:
    """Where to find a box."""
    print(f"{box.name}:")
    print(f"  console   https://127.0.0.1:{box.api.port}")
    print(f"  channels  http://127.0.0.1:{box.api.channel_port}")
    print(f"  serial    tail -F {box.serial_log}   (type into it: socat - unix:{box.folder}/serial.sock)", flush=True)


def main() -> int:
    """Starts the boxes, says when each answers, and waits for Ctrl-C."""
    given = arguments()
    image = given.image or images.image("0.9.0", disk=True, name="qemu").disk
    place = images.folder() / "boxes"
    if given.new:
        shutil.rmtree(place, ignore_errors=True)
    switch = Lan(place / "lan") if given.boxes > 1 else None
    boxes = [
        Box(f"box{number}", image, place / f"box{number}", memory=given.memory, disk_gib=given.disk,
            tpm=given.tpm, online=True, lan=switch.port(f"box{number}") if switch else None)
        for number in range(1, given.boxes + 1)
    ]
    end = time.monotonic() + given.seconds if given.seconds else None
    waiting = set(boxes)
    try:
        for box in boxes:
            box.start()
            report(box)
        while any(box.is_on() for box in boxes) and not (end and time.monotonic() > end):
            for box in list(waiting):
                try:
                    told = box.api.get("/v1/claim", timeout=5)
                except OSError:
                    continue
                waiting.discard(box)
                codes = CODE.findall(box.serial())
                code = f", first-run code {codes[-1]}" if codes and not told["claimed"] else ""
                seconds = time.monotonic() - box.started
                print(f"{box.name} is {told['node']} and answers at https://127.0.0.1:{box.api.port} after {seconds:.0f} s{code}",
                      flush=True)
            time.sleep(1)
    except KeyboardInterrupt:
        print("switching off", flush=True)
    for box in boxes:
        if box.is_on():
            box.qmp.call("system_powerdown")
    for box in boxes:
        try:
            box.wait_off(30)
        except (AssertionError, KeyboardInterrupt):
            box.power_cut()
    return 0


if __name__ == "__main__":
    sys.exit(main())
