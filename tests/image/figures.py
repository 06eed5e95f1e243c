"""The figures of the image, each beside a plain Debian in the same QEMU in the same run.

Run at the end of `make bench-image`.  Sizes are read from what was built; memory and times are measured: the box and
the peer are started in turn, `ROUNDS` times each, alone on the machine, with the same memory and processors, and the
median counts.  The peer (harness/peer.py) is the smallest Debian that people would call a server; it has no
integration server, no update, no encryption.  What a figure is compared with stands beside it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import http.server  # noqa: E402

from harness import images, peer  # noqa: E402
from harness.box import Box  # noqa: E402
from harness.ranges import Files  # noqa: E402
from harness.tools import run  # noqa: E402
from harness.updates import install  # noqa: E402
from harness.waiting import wait_for  # noqa: E402

MIB = 1 << 20
#: Compressed sizes in MiB, idle memory in MiB, ratio of times, share of the bundle.
TARGETS = {"bench": 130.0, "buildroot": 64.0, "idle": 120.0, "boot": 1.3, "adaptive": 0.10}


def arguments() -> argparse.Namespace:
    """What the Makefile passes on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="starts of each, of which the median counts")
    parser.add_argument("--memory", type=int, default=512, help="MiB for each")
    parser.add_argument("--base", choices=["bench", "buildroot"], default="bench")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--strict", action="store_true", help="exit 1 where a target is missed")
    return parser.parse_args()


def compressed(disk: Path) -> float:
    """MiB of a disk image under the compression of our images."""
    packed = disk.with_suffix(".zst")
    if not packed.exists():
        run(["zstd", "-q", "-f", "-T0", "-12", "--long=27", disk, "-o", packed])
    return packed.stat().st_size / MIB


def peer_start(disk: Path, place: Path, memory: int) -> tuple[float, float]:
    """Seconds to multi-user and MiB used 20 s later."""
    box = Box("peer", disk, place, memory=memory)
    box.start()
    try:
        box.wait_serial("PEER-MULTI-USER")
        import time

        seconds = time.monotonic() - box.started
        box.wait_serial("PEER-DONE")
        said = dict(line.split("PEER-", 1)[1].replace(":", "").split() for line in box.serial().splitlines()
                    if "PEER-Mem" in line)
        return seconds, (int(said["MemTotal"]) - int(said["MemAvailable"])) / 1024
    finally:
        box.power_cut()


def our_first_start(image: images.Image, place: Path, memory: int) -> tuple[Box, float]:
    """A factory-fresh box: seconds to the first answered request; it is left running, claimed and confirmed."""
    from conftest import settle, wait_confirmed

    box = Box("figures", image.disk, place, memory=memory, online=True)
    box.start()
    seconds = box.wait_answering()
    settle(box)
    wait_confirmed(box)
    return box, seconds


def our_start(box: Box) -> tuple[float, float, float]:
    """A start like every other: seconds to the first answer of the console and of a channel; MiB used 20 s later."""
    import time

    box.start()
    console = box.wait_answering()

    def through() -> bool:
        return box.api.channel("/image/echo", b"{}").status == 200

    wait_for("the channel answers", through, 120, 0.25)
    channel = time.monotonic() - box.started
    time.sleep(20)
    memory = box.api.get("/v1/system/status")["memory"]
    return console, channel, (memory["total"] - memory["available"]) / MIB


def adaptive(box: Box, name: str) -> tuple[int, int]:
    """Bytes fetched for a bundle with a small change, installed over the slot that holds the version before."""
    change = images.image(images.VERSION_B, "minor-change", name=name)
    Files.sent = 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(change.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        seen = install(box, url=f"http://10.0.2.2:{server.server_address[1]}/bundle.raucb", reboot=False)
    finally:
        server.shutdown()
    if seen[0]["state"] != "installed":
        raise RuntimeError(f"the update was not installed: {seen[0]['error']}")
    return Files.sent, change.bundle.stat().st_size


def line(what: str, ours: float, unit: str, theirs: float | None = None, target: str = "", met: bool = True) -> str:
    """One row of the table."""
    beside = f"{theirs:9.1f} {unit:4} {ours / theirs:6.2f}" if theirs else " " * 21
    note = f"  {'ok    ' if met else 'MISSED'} {target}" if target else ""
    return f"  {what:44} {ours:9.1f} {unit:4} {beside}{note}"


def main() -> int:
    """Measures everything and prints the table."""
    given = arguments()
    image = images.image(images.VERSION_A, disk=True)
    disk = peer.build()
    with tempfile.TemporaryDirectory(prefix="arint-figures-") as made:
        place = Path(made)
        theirs = []
        ours = []
        box, first = our_first_start(image, place / "ours", given.memory)
        box.stop()
        for number in range(given.rounds):
            theirs.append(peer_start(disk, place / f"peer{number}", given.memory))
            ours.append(our_start(box))
            print(f"round {number + 1}: peer {theirs[-1][0]:.1f} s, ours {ours[-1][0]:.1f} s", file=sys.stderr, flush=True)
            if number + 1 < given.rounds:
                box.stop()
        fetched, whole = adaptive(box, "figures-change")
        box.power_cut()
    peer_boot, peer_memory = (statistics.median(column) for column in zip(*theirs, strict=True))
    console, channel, memory = (statistics.median(column) for column in zip(*ours, strict=True))
    size = (image.folder / "image.img.zst").stat().st_size / MIB
    figures = {
        "image_mib": size, "peer_image_mib": compressed(disk), "bundle_mib": image.bundle.stat().st_size / MIB,
        "idle_mib": memory, "peer_idle_mib": peer_memory, "first_start_s": first, "console_s": console,
        "channel_s": channel, "peer_multi_user_s": peer_boot, "adaptive_share": fetched / whole,
        "memory_mib": given.memory, "rounds": given.rounds,
    }
    met = {
        "size": size <= TARGETS[given.base], "idle": memory <= TARGETS["idle"],
        "boot": console <= peer_boot * TARGETS["boot"], "adaptive": fetched / whole <= TARGETS["adaptive"],
    }
    print(f"The image beside a plain Debian 13, both with {given.memory} MiB and 2 processors under software emulation")
    print(f"  {'':44} {'ours':>9} {'':4} {'Debian':>9} {'':4} {'ratio':>6}")
    print(line("image, compressed (zstd -12)", size, "MiB", figures["peer_image_mib"],
               f"at most {TARGETS[given.base]:.0f}", met["size"]))
    print(line("update bundle", figures["bundle_mib"], "MiB"))
    print(line("memory used when idle", memory, "MiB", peer_memory, f"at most {TARGETS['idle']:.0f}", met["idle"]))
    print(line("power to console / to multi-user", console, "s", peer_boot, f"at most {TARGETS['boot']} times", met["boot"]))
    print(line("power to first answer of a channel", channel, "s", peer_boot))
    print(line("the very first start, to console", first, "s", peer_boot))
    print(line("fetched for a minor change, of the bundle", fetched / whole * 100, "%", None, "at most 10 %", met["adaptive"]))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if given.strict and not all(met.values()) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.SubprocessError as err:
        sys.exit(f"figures: {err}")
