"""One factory-fresh box, from its first start to normal life, without internet: many looks at few starts.

The tests of this file share a box and go on from each other, as a day with a new box does.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CHANNEL, SERVICE, wait_confirmed
from harness import images, mdns, scan
from harness.api import CODE, PASSWORD, Api, ApiError
from harness.box import Box
from harness.journal import complaints
from harness.lan import Lan, Station
from harness.waiting import wait_for

UNITS = {"arclst.service", "arsrv.service", "arldb.service", "arwadm.service", "aros.service"}


@pytest.fixture(scope="module")
def first(folder: Path, image_a: images.Image, request: pytest.FixtureRequest) -> Iterator[tuple[Box, Station]]:
    """The box, switched on for the first time, and somebody else on its LAN."""
    lan = Lan(folder / "first" / "lan")
    station = Station(lan, "station")
    box = Box("first", image_a.disk, folder / "first" / "box", lan=lan.port("first"))
    box.start()
    yield box, station
    box.power_cut()
    station.close()
    lan.close()


def link_local(box: Box) -> str:
    """The IPv4 link-local address on the LAN, where nobody hands out any."""

    def look() -> str | None:
        for link in box.api.get("/v1/system/network")["links"]:
            for address in link["addresses"]:
                if address.startswith("169.254."):
                    return str(address.split("/")[0])
        return None

    return wait_for(f"`{box.name}` has a link-local address", look, 60)


def test_it_answers_over_https_after_its_first_start_without_internet(first):
    box, _ = first
    seconds = box.wait_answering()
    print(f"first start to first answer: {seconds:.1f} s")
    info = box.api.get("/v1/claim")
    assert info["claimed"] is False
    assert info["fingerprint"] == box.api.certificate


def test_it_is_claimed_once_with_the_code_on_its_serial_console(first):
    box, _ = first
    code = box.code()
    for wrong in ("", "AAAA-AAAA"):
        refused = box.api.request("POST", "/v1/claim", {"code": wrong, "user": "mallory", "password": PASSWORD})
        assert refused.status in (400, 401, 403), refused.body
    box.api.claim(code)
    again = Api(box.api.host, box.api.port, box.api.channel_port)
    with pytest.raises(ApiError) as err:
        again.claim(code)
    assert err.value.status in (403, 409)
    assert again.get("/v1/claim")["claimed"] is True


def test_every_unit_is_active_and_none_failed(first):
    box, _ = first
    units = wait_for("every unit runs", lambda: all_active(box), 120)
    assert UNITS <= set(units)
    status = box.api.get("/v1/system/status")
    assert status["failed_units"] == []
    assert status["version"] == images.VERSION_A
    assert status["boot"]["slot"] == "a"
    assert status["secure_boot"] is False and status["encrypted"] is False


def all_active(box: Box) -> dict[str, str] | None:
    """The states of our units, once all are active."""
    units = {unit["name"]: unit["active"] for unit in box.api.get("/v1/system/units")}
    ours = {name: units.get(name) for name in UNITS}
    return units if all(state == "active" for state in ours.values()) else None


def test_its_name_comes_from_its_own_key(first):
    box, _ = first
    status = box.api.get("/v1/system/status")
    assert re.fullmatch(r"arsrv-[0-9a-z]{8}", status["hostname"]), status["hostname"]
    assert re.fullmatch(r"[0-9a-f]{64}", status["fingerprint"])


def test_a_service_is_deployed_and_its_channel_answers(first):
    box, _ = first
    box.api.deploy("image_echo.py", SERVICE)
    box.api.put("Channel", "image-echo", CHANNEL)
    answer = box.api.channel("/image/echo", json.dumps({"n": 1}).encode())
    assert answer.status == 200, answer.body
    assert answer.json()["echo"] == {"n": 1}


def test_it_is_found_by_name_and_by_service_where_nobody_hands_out_addresses(first):
    box, station = first
    name = box.api.get("/v1/system/status")["hostname"]
    address = link_local(box)
    assert mdns.boxes(station) == {name}
    rows, resolved = wait_for("Avahi finds it", lambda: told_by_avahi(station, name), 120)
    assert {row[2] for row in rows} == {name} and resolved["4"] == address
    assert '"claimed=yes"' in rows[0][8] and f'"name={name}"' in rows[0][8], rows
    assert mdns.addresses(station, name) == {address}
    status, text = scan.https_get(station, address, "/v1/claim")
    assert status == 200 and json.loads(text)["node"]


def told_by_avahi(station: Station, name: str) -> tuple[list[list[str]], dict[str, str]] | None:
    """What Avahi on the LAN found, once it has found something and resolves the name."""
    rows, resolved = mdns.avahi(station, name)
    return (rows, resolved) if rows and "4" in resolved else None


def test_only_the_documented_ports_are_open_to_the_lan(first):
    box, station = first
    assert scan.tcp_ports(station, link_local(box)) == scan.TCP_PORTS


def test_nobody_without_a_log_in_is_told_anything_but_what_a_claim_needs(first):
    box, _ = first
    stranger = Api(box.api.host, box.api.port, box.api.channel_port)
    for method, path in [("GET", "/v1/system/status"), ("GET", "/v1/system/network"), ("GET", "/v1/system/journal"),
                         ("GET", "/v1/system/support/bundle"), ("GET", "/v1/objects"), ("GET", "/v1/audit"),
                         ("POST", "/v1/system/power"), ("POST", "/v1/system/factory-reset"),
                         ("PUT", "/v1/system/update/bundle"), ("PUT", "/v1/objects/Channel/theirs")]:
        answer = stranger.request(method, path, {})
        assert answer.status == 401, f"{method} {path} gave {answer.status}: {answer.body[:200]!r}"
    # Certificate and key are what every TLS handshake shows.
    assert set(stranger.get("/v1/claim")) <= {"claimed", "node", "fingerprint", "key", "version", "recovery"}
    assert box.api.channel("/nothing/is/here").status == 404


def test_the_slot_is_confirmed_by_function_and_the_black_box_says_so(first):
    box, _ = first
    wait_confirmed(box)
    probes = {probe["name"]: probe for probe in box.api.get("/v1/system/probes")}
    assert {"units", "store", "channel"} <= set(probes)
    assert all(probe["passed"] for probe in probes.values()), probes
    view = box.api.get("/v1/system/blackbox")
    assert view["why"] is None
    events = [entry["event"] for entry in view["entries"]]
    assert "started" in events and "confirmed" in events
    assert events.index("confirmed") < events.index("started"), "newest first"


def test_the_journal_is_clean_and_systemd_found_no_ordering_cycle(first):
    box, _ = first
    lines = box.api.journal(lines=20000, priority=7)
    assert len(lines) > 100
    codes = [line["message"] for line in lines if CODE.search(str(line["message"]))]
    assert len(codes) == 1 and "claim" in codes[0], "the code stands in the log of the first start, once"
    assert complaints(lines) == []
    assert complaints([{"priority": 6, "unit": "serial", "message": line} for line in box.serial().splitlines()]) == []


def test_the_first_stage_takes_the_disk_the_boot_loader_came_from_and_warns_of_nothing(first):
    box, _ = first
    lines = [line for line in box.api.journal(lines=20000, priority=7) if line["unit"] == "arinit"]
    said = [str(line["message"]) for line in lines]
    assert [line for line in lines if int(line["priority"]) <= 4] == [], said
    assert any(text.startswith("starting slot a ") for text in said), said


def test_nothing_is_writable_but_state_data_and_memory_and_no_other_port_of_udp_is_open(first):
    box, _ = first
    session = box.api.call("POST", "/v1/system/support", {"minutes": 10})
    box.mark_serial()
    box.type("\n")
    box.wait_serial("login:", 60)
    box.type(f"{session['user']}\n")
    box.wait_serial("assword:", 60)
    box.type(f"{session['password']}\n")
    wait_for("the support session's prompt", lambda: box.serial().rstrip()[-1:] in ("$", "#", ">"), 60)
    box.mark_serial()
    box.type("stty -echo; cat /proc/self/mountinfo; echo END-OF-\"\"LIST\n")
    box.wait_serial("END-OF-LIST\r\n", 60)
    mounts = box.serial()
    box.mark_serial()
    box.type("cat /proc/net/udp /proc/net/udp6; echo END-OF-\"\"PORTS\n")
    box.wait_serial("END-OF-PORTS\r\n", 60)
    sockets = re.findall(r"^ *\d+: ([0-9A-F]+):([0-9A-F]{4}) ([0-9A-F]+):0000 07 ", box.serial(), re.MULTILINE)
    # Addresses are little-endian there: 127.0.0.0/8 ends with 7F.
    everybody = {int(port, 16) for here, port, _ in sockets if not (len(here) == 8 and here.endswith("7F"))}
    assert {5353, 123} <= everybody <= scan.UDP_PORTS, box.serial()
    writable = {}
    for line in mounts.splitlines():
        match = re.match(r"^\d+ \d+ \S+ \S+ (\S+) (\S+) .*- (\S+) (\S+) (\S+)", line)
        if match and "rw" in match[2].split(",") and "rw" in match[5].split(","):
            writable[match[1]] = match[3]
    box.type("exit\n")
    assert writable, mounts
    memory = {"tmpfs", "proc", "sysfs", "devtmpfs", "devpts", "cgroup2", "mqueue", "hugetlbfs", "debugfs", "tracefs",
              "securityfs", "pstore", "bpf", "configfs", "fusectl", "ramfs", "binfmt_misc", "autofs", "efivarfs",
              "overlay"}
    on_disk = {where: kind for where, kind in writable.items() if kind not in memory}
    # Bind mounts show the file system they come from.
    assert {kind for where, kind in on_disk.items() if where != "/efi"} == {"xfs"}, on_disk
    outside = [where for where in on_disk if not re.match(r"^/(var|data|efi)(/|$)", where)]
    assert outside == [], on_disk


def test_a_power_cut_loses_nothing_that_was_acknowledged(first):
    box, _ = first
    before = box.api.get("/v1/system/status")
    for number in range(20):
        box.api.put("Channel", f"kept-{number}", {**CHANNEL, "url_path": f"/kept/{number}"})
    box.restart()
    seconds = box.wait_answering()
    print(f"second start to first answer: {seconds:.1f} s")
    for number in range(20):
        assert box.api.get(f"/v1/objects/Channel/kept-{number}")["name"] == f"kept-{number}"
    after = box.api.get("/v1/system/status")
    assert (after["hostname"], after["fingerprint"]) == (before["hostname"], before["fingerprint"])
    assert after["boot"]["confirmed"] is True or wait_confirmed(box) is None
    assert wait_for("the channel answers", lambda: box.api.channel("/kept/7", b"{}").status == 200, 60)


def test_a_claimed_box_shows_no_code_any_more(first):
    box, _ = first
    assert CODE.findall(box.serial()) == []


def test_it_switches_itself_off_in_an_orderly_way(first):
    box, _ = first
    box.api.call("POST", "/v1/system/power", {"action": "power_off"})
    box.wait_off(120)
    assert "Failed unmounting" not in box.serial()
