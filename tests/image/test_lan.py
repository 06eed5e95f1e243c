"""Two boxes of the same image on one LAN without any server: they differ, and find each other."""

import json
from pathlib import Path

from harness import images, mdns, scan
from harness.box import Box
from harness.lan import Lan, Rule, Station
from harness.waiting import wait_for


def test_two_boxes_of_one_image_have_two_names_and_are_both_found(make_box, lan: Lan, image_a: images.Image):
    station = Station(lan, "station")
    # No uplink and no DHCP: link-local addresses are all there is.
    boxes = [make_box(name, image_a.disk, lan=lan.port(name), uplink=False, memory=384) for name in ("one", "two")]
    for box in boxes:
        box.start()
    try:
        names = wait_for("both boxes announce `_arint._tcp`", lambda: both(station), 300, 2)
        assert len(names) == 2
        fingerprints = set()
        for name in names:
            assert not name.endswith("-2"), "a name that had to be changed was not a box's own"
            address = wait_for(f"`{name}.local` has an address", lambda name=name: mdns.addresses(station, name), 120)
            assert len(address) == 1
            status, text = wait_for(f"`{name}` answers", lambda a=address: scan.https_get(station, min(a), "/v1/claim"), 120)
            assert status == 200
            fingerprints.add(json.loads(text)["fingerprint"])
        assert len(fingerprints) == 2, "each box has a certificate of its own"
        codes = {box.code() for box in boxes}
        assert len(codes) == 2
        # Quiet once settled: no storm, whoever shares a LAN with sixteen of them.
        before = dict(lan.frames)
        assert wait_for("half a minute passes", Quiet(30), 60, 1)
        for name in ("one", "two"):
            rate = (lan.frames.get(name, 0) - before.get(name, 0)) / 30
            print(f"`{name}` sent {rate:.2f} frames a second")
            assert rate < 2
        # A LAN that loses and doubles frames only makes it slower.
        for name in ("one", "two"):
            lan.between("station", name, Rule(drop=0.2, duplicate=0.2, jitter=0.05))
        assert wait_for("both are found on a bad LAN", lambda: both(station), 120) == names
    finally:
        station.close()


class Quiet:
    """True once that many seconds have passed."""

    def __init__(self, seconds: float) -> None:
        import time

        self._end = time.monotonic() + seconds

    def __call__(self) -> bool:
        import time

        return time.monotonic() > self._end


def both(station: Station) -> set[str] | None:
    """The names, once there are two."""
    names = mdns.boxes(station, 3)
    return names if len(names) == 2 else None
