"""Two boxes of the same image on one LAN without any server: they differ, find each other, and agree on the time."""

import json
from pathlib import Path

from harness import images, mdns, scan
from harness.box import Box
from harness.lan import Lan, Rule, Station
from harness.waiting import wait_for


def test_two_boxes_of_one_image_have_two_names_and_are_both_found(make_box, lan: Lan, image_a: images.Image):
    station = Station(lan, "station")
    # No uplink and no DHCP: link-local addresses are all there is.
    # The battery of one is empty; that of the other is not.
    boxes = [make_box(name, image_a.disk, lan=lan.port(name), uplink=False, memory=384, clock=clock)
             for name, clock in (("one", None), ("two", "2020-01-01T00:00:00"))]
    for box in boxes:
        box.start()
    try:
        names = wait_for("both boxes announce `_arint._tcp`", lambda: both(station), 300, 2)
        assert len(names) == 2
        fingerprints = set()
        found = []
        for name in names:
            assert not name.endswith("-2"), "a name that had to be changed was not a box's own"
            address = wait_for(f"`{name}.local` has an address", lambda name=name: mdns.addresses(station, name), 120)
            assert len(address) == 1
            found += address
            status, text = wait_for(f"`{name}` answers", lambda a=address: scan.https_get(station, min(a), "/v1/claim"), 120)
            assert status == 200
            fingerprints.add(json.loads(text)["fingerprint"])
        assert len(fingerprints) == 2, "each box has a certificate of its own"
        # A stranger's own program finds both, with what a list of boxes shows, and resolves a name.
        rows, resolved = wait_for("Avahi finds both with all they tell", lambda: all_told(station, names), 180)
        assert resolved["4"] in found and {row[2] for row in rows} == names
        # One runs on its battery; the other, which began at the build's time, has taken its time from there.
        told = wait_for("both know the time", lambda: times(station, found), 300, 2)
        assert sorted(stratum for stratum, _ in told) == [10, 11], told
        assert all(abs(off) < 10 for _, off in told), told
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


def all_told(station: Station, names: set[str]) -> tuple[list[list[str]], dict[str, str]] | None:
    """What Avahi found, once every box is among it with all of its texts."""
    rows, resolved = mdns.avahi(station, min(names))
    texts = {row[2]: row[8] for row in rows}
    wanted = {name: [f'"name={name}"', f'"version={images.VERSION_A}"', '"claimed=no"', '"id='] for name in names}
    told = all(all(part in texts.get(name, "") for part in parts) for name, parts in wanted.items())
    return (rows, resolved) if told and "4" in resolved else None


def times(station: Station, addresses: list[str]) -> list[tuple[int, float]] | None:
    """Stratum and error of every clock, once all tell them."""
    told = [scan.ntp(station, address) for address in addresses]
    return [one for one in told if one] if all(told) else None
