"""A box on a LAN with servers: addresses, names and time from them; VLAN and bond; changes on trial; name and zone.

One box with three network cards goes through all of it, so the tests go on from each other.  The first card is the way the
tests reach its admin API by; the other two are on a virtual LAN, where a station is router, DHCP and time server: real
ones, from Debian packages.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import wait_confirmed
from harness import images, mdns, scan
from harness.arctl import arctl
from harness.box import Box
from harness.lan import Lan, Station
from harness.tools import tool
from harness.waiting import Impatient, wait_for

#: The cards of the box, as its kernel names them: the tests' own way in, and two on the LAN.
UPLINK, LAN, LAN2 = "enp0s16", "enp0s17", "enp0s18"
VLAN = 20
#: Where the box's clock stands when it is switched on: its battery was empty.
LONG_AGO = "2020-01-01T00:00:00"


@dataclass
class Net:
    """The box, and what is around it."""

    box: Box
    lan: Lan
    station: Station
    office: Station
    folder: Path

    def leases(self) -> str:
        """What the DHCP server has given away."""
        path = self.folder / "leases"
        return path.read_text() if path.exists() else ""

    def plug(self, card: str, plugged: bool) -> None:
        """Plugs a card's cable in or out."""
        self.box.qmp.call("set_link", name=card, up=plugged)

    def arctl(self, *words: str, code: int = 0) -> str:
        """Runs arctl; gives what it said."""
        ended, out, err = arctl(self.box, *words)
        assert ended == code, f"arctl {' '.join(words)} ended with {ended}: {out}{err}"
        return out + err

    def links(self) -> dict[str, dict[str, list[str]]]:
        """The box's links by name."""
        return {link["name"]: link for link in self.box.api.get("/v1/system/network")["links"]}

    def write(self, name: str, kind: str, spec: dict[str, object]) -> str:
        """A file with one object, for arctl."""
        path = self.folder / name
        path.write_text(json.dumps({"kind": kind, "name": "default", "spec": spec}))
        return str(path)


@pytest.fixture(scope="module")
def net(folder: Path, image_a: images.Image) -> Iterator[Net]:
    """The box, switched on for the first time with an empty battery, on a LAN that has everything."""
    here = folder / "network"
    here.mkdir(parents=True, exist_ok=True)
    here.chmod(0o750)
    lan = Lan(here / "lan")
    lan.vlans["office"] = VLAN
    station = Station(lan, "station", ("192.0.2.1/24", "2001:db8:1::1/64"))
    office = Station(lan, "office", ("198.51.100.1/24",))
    (here / "leases").unlink(missing_ok=True)
    station.start(tool("dnsmasq"), "--no-daemon", "--conf-file=/dev/null", "--user=root", "--group=root", "--pid-file=",
                  "--interface=lan0", "--bind-interfaces", "--no-resolv", "--no-hosts", f"--dhcp-leasefile={here}/leases",
                  "--dhcp-range=192.0.2.100,192.0.2.150,255.255.255.0,10m", "--dhcp-option=option:ntp-server,192.0.2.1",
                  "--dhcp-option=option:domain-name,plant.example", "--enable-ra", "--ra-param=lan0,10",
                  "--dhcp-range=2001:db8:1::,ra-only", log=here / "dnsmasq.log")
    (here / "chrony.conf").write_text(f"local stratum 3\nallow\ncmdport 0\nbindcmdaddress /\npidfile {here}/chrony.pid\n")
    # It serves this machine's clock, and does not touch it (-x).
    station.start(tool("chronyd"), "-x", "-d", "-u", "root", "-f", str(here / "chrony.conf"), log=here / "chrony.log")
    box = Box("network", image_a.disk, here / "box", lan=lan.port("one"), clock=LONG_AGO,
              more=["-netdev", f"stream,id=lan2,server=off,addr.type=unix,addr.path={lan.port('two')}",
                    "-device", "virtio-net-pci,netdev=lan2,mac=52:54:00:02:00:02,addr=0x12"])
    box.start()
    # Two cards on one LAN would see each other's multicast; the second is for the bond.
    box.qmp.call("set_link", name="lan2", up=False)
    box.claim()
    wait_confirmed(box)
    yield Net(box, lan, station, office, here)
    box.power_cut()
    office.close()
    station.close()
    lan.close()


def test_addresses_gateways_and_name_servers_come_from_dhcp_and_router_advertisements(net):
    def all_there() -> dict[str, list[str]] | None:
        link = net.links()[LAN]
        v4 = any(address.startswith("192.0.2.1") for address in link["addresses"])
        v6 = any(address.startswith("2001:db8:1:") for address in link["addresses"])
        return link if v4 and v6 and len(link["gateways"]) == 2 and link["dns"] else None

    link = wait_for("addresses of both families", all_there, 90)
    assert "192.0.2.1" in link["gateways"] and any(gateway.startswith("fe80::") for gateway in link["gateways"])
    assert "192.0.2.1" in link["dns"]
    assert not any(address.startswith("169.254.") for address in link["addresses"]), "no fallback where there is a server"
    name = net.box.api.get("/v1/system/status")["hostname"]
    assert name in net.leases(), "the DHCP server knows the box by its name"
    shown = net.arctl("network", "show")
    assert re.search(rf"{LAN} +up .*192\.0\.2\.1, fe80::", shown), shown
    address = next(address for address in link["addresses"] if address.startswith("2001:db8:1:")).split("/")[0]
    status, _ = scan.https_get(net.station, address, "/v1/claim")
    assert status == 200


def test_a_box_with_an_empty_battery_gets_the_time_from_the_server_that_dhcp_names(net):
    # Until then its clock was at the build's time, not in 2020: TLS would refuse everything.
    lines = net.box.api.journal(lines=20000, boot=0)
    built = (images.TOP / "Cargo.toml").stat().st_mtime
    assert min(line["time_ms"] for line in lines if line["unit"] == "arclst.service") / 1000 > 1_750_000_000, built
    clock = wait_for("the clock is set", lambda: synchronized(net.box), 120)
    assert clock["source"] == "192.0.2.1", clock
    assert abs(clock["now_ms"] / 1000 - time.time()) < 30
    told = wait_for("it tells the time itself", lambda: scan.ntp(net.station, lan_address(net)), 60)
    assert told[0] == 4 and abs(told[1]) < 5, told
    assert "set by 192.0.2.1" in net.arctl("system", "status")


def synchronized(box: Box) -> dict[str, object] | None:
    """The clock, once it was set."""
    clock: dict[str, object] = box.api.get("/v1/system/status")["clock"]
    return clock if clock["synchronized"] else None


def lan_address(net: Net) -> str:
    """The box's IPv4 address on the LAN."""
    found = [address.split("/")[0] for link in net.links().values() for address in link["addresses"]]
    return next(address for address in found if address.startswith("192.0.2."))


def test_only_the_documented_ports_answer_over_ipv6_too(net):
    address = next(address for address in net.links()[LAN]["addresses"] if address.startswith("2001:db8:1:"))
    assert scan.tcp_ports(net.station, address.split("/")[0]) == scan.TCP_PORTS


def test_host_name_time_zone_and_time_servers_are_one_object_and_take_effect_at_once(net):
    spec = {"hostname": "plant-7", "timezone": "Europe/Berlin", "ntp": ["192.0.2.1"]}
    net.arctl("apply", "-f", net.write("system.json", "System", spec))
    status = wait_for("the new name", lambda: renamed(net.box, "plant-7"), 60)
    assert status["clock"]["timezone"] == "Europe/Berlin" and status["problems"] == []
    found, addresses = wait_for("Avahi finds the new name", lambda: found_as(net.station, "plant-7"), 120)
    assert addresses["4"] == lan_address(net)
    text = next(row[8] for row in found if row[2] == "plant-7")
    assert '"name=plant-7"' in text and '"claimed=yes"' in text and f'"version={images.VERSION_A}"' in text, text
    assert f'"id={status["fingerprint"]}"' in text
    assert {row[2] for row in found} == {"plant-7"}, "the old name is gone"

    # What cannot be done is said, and the rest is done.
    refused = net.arctl("apply", "-f", net.write("bad.json", "System", {"hostname": "a_b"}), code=2)
    assert "is not a host name" in refused, refused
    net.arctl("apply", "-f", net.write("zone.json", "System", {**spec, "timezone": "Europe/Nowhere"}))
    told = wait_for("the problem", lambda: net.box.api.get("/v1/system/status")["problems"], 30)
    assert told == ["time zone `Europe/Nowhere` is not in this image's database; the clock shows the one before"]
    assert told[0] in net.arctl("system", "status", code=3)
    net.arctl("apply", "-f", net.write("system.json", "System", spec))
    wait_for("the problem is over", lambda: not net.box.api.get("/v1/system/status")["problems"], 30)


def renamed(box: Box, name: str) -> dict[str, dict[str, object]] | None:
    """The status, once it has that name."""
    status: dict[str, dict[str, object]] = box.api.get("/v1/system/status")
    return status if status["hostname"] == name and status["clock"]["timezone"] != "UTC" else None


def found_as(station: Station, name: str) -> tuple[list[list[str]], dict[str, str]] | None:
    """What Avahi found, once the name is among it with an address."""
    found, addresses = mdns.avahi(station, name)
    # Name and texts change one after the other.
    is_told = found and all(row[2] == name and f'"name={name}"' in row[8] for row in found)
    return (found, addresses) if "4" in addresses and is_told else None


def test_units_journal_and_itself_are_shown_by_arctl(net):
    assert re.search(r"aros\.service +active +running", net.arctl("system", "units"))
    journal = net.arctl("system", "journal", "--unit", "aros.service", "--boot", "0", "--lines", "2000")
    assert "name and time settings change" in journal
    refused = net.box.api.request("GET", "/v1/system/journal?boot=1")
    assert refused.status == 400 and "boot 1 is above 0" in refused.json()["message"]
    # QEMU's machine has no LED: the bell of its serial console rings.
    net.box.mark_serial()
    assert "the box shows itself for 2 s: bell" in net.arctl("system", "identify", "--seconds", "2")
    wait_for("the bell rings", lambda: "\a" in net.box.serial(), 10)
    disks = net.box.api.get("/v1/system/status")["disks"]
    assert {disk["label"] for disk in disks} >= {"state", "data"}
    assert all(disk.get("health") is None for disk in disks), "a disk that says nothing has no health, rather than a good one"


def test_a_static_address_and_a_vlan_are_kept_once_the_box_was_reached_again(net):
    spec = {"interfaces": [
        {"name": LAN, "addresses": ["192.0.2.20/24", "2001:db8:1::20/64"], "gateways": ["192.0.2.1"], "dns": ["192.0.2.1"]},
        {"name": "office", "kind": {"vlan": {"parent": LAN, "id": VLAN}}, "addresses": ["198.51.100.2/24"]}]}
    said = net.arctl("network", "set", "-f", net.write("static.json", "Network", spec), "--confirm-after-check")
    assert "network is kept" in said, said
    links = wait_for("the addresses", lambda: has(net, "office", "198.51.100.2/24"), 60)
    assert "192.0.2.20/24" in links[LAN]["addresses"]
    assert links[LAN]["gateways"][0] == "192.0.2.1" and links[LAN]["dns"] == ["192.0.2.1"], links[LAN]
    assert not any(address.startswith("192.0.2.1") for address in links[LAN]["addresses"]), "the lease is given back"
    for station, address in ((net.station, "192.0.2.20"), (net.office, "198.51.100.2")):
        status, _ = wait_for(f"{address} answers", lambda s=station, a=address: scan.https_get(s, a, "/v1/claim"), 60)
        assert status == 200
    refused = {"interfaces": [{"name": LAN, "addresses": ["192.0.2.20/24"], "gateways": ["198.51.100.1"]}]}
    said = net.arctl("network", "set", "-f", net.write("refused.json", "Network", refused), code=2)
    assert "gateway `198.51.100.1` is in no subnet of the static addresses" in said, said


def has(net: Net, link: str, address: str) -> dict[str, dict[str, list[str]]] | None:
    """The links, once one has the address."""
    links = net.links()
    return links if link in links and address in links[link]["addresses"] else None


def test_a_bond_goes_on_over_either_cable(net):
    spec = {"interfaces": [{"name": "bond0", "kind": {"bond": {"mode": "active-backup", "members": [LAN, LAN2]}},
                            "addresses": ["192.0.2.30/24"], "gateways": ["192.0.2.1"], "dns": ["192.0.2.1"]}]}
    said = net.arctl("network", "set", "-f", net.write("bond.json", "Network", spec), "--confirm-after-check")
    assert "network is kept" in said, said
    net.plug("lan2", True)
    wait_for("the bond", lambda: has(net, "bond0", "192.0.2.30/24"), 60)
    links = wait_for("its members give their addresses up", lambda: without_addresses(net, LAN, LAN2), 60)
    assert "office" not in links, "the VLAN went with its parent's file"
    for out, other in (("lan", "lan2"), ("lan2", "lan")):
        net.plug(other, True)
        time.sleep(1)
        net.plug(out, False)
        status, _ = wait_for(f"the box answers without `{out}`", lambda: answers(net.station, "192.0.2.30"), 90)
        assert status == 200
    net.plug("lan2", True)


def without_addresses(net: Net, *names: str) -> dict[str, dict[str, list[str]]] | None:
    """The links, once those have no address."""
    links = net.links()
    return None if any(links[name]["addresses"] for name in names) else links


def answers(station: Station, address: str) -> tuple[int, str] | None:
    """The claim page from the LAN; None while nobody answers."""
    try:
        return scan.https_get(station, address, "/v1/claim")
    except RuntimeError:
        return None


def test_a_change_that_cuts_the_admin_off_is_undone_by_itself(net):
    before = net.box.api.get("/v1/system/network")["confirmed"]
    lost = {"interfaces": [*before["interfaces"], {"name": UPLINK, "addresses": ["203.0.113.9/24"]}]}
    said = net.arctl("network", "set", "-f", net.write("lost.json", "Network", lost))
    assert "goes back in" in said or "on trial" in said, said
    wait_for("the admin is cut off", lambda: not reachable(net.box), 60)
    wait_for("the admin is back", lambda: reachable(net.box), 240)
    now = wait_for("the trial is over", lambda: ended(net.box), 60)
    assert now["confirmed"] == before
    shown = net.arctl("network", "show")
    assert "last change was undone: the change of Network `default` was not confirmed within 60 s" in shown, shown
    assert net.box.api.get("/v1/objects/Network/default")["spec"]["interfaces"] == before["interfaces"]


def reachable(box: Box) -> bool:
    """Whether it answers at once."""
    try:
        return box.api.request("GET", "/v1/claim", timeout=3).status == 200
    except OSError:
        return False


def ended(box: Box) -> dict[str, object] | None:
    """The network once nothing is on trial."""
    now: dict[str, object] = box.api.get("/v1/system/network")
    return now if now["trial"] is None else None


def test_what_was_confirmed_is_there_after_a_restart_and_the_clock_did_not_go_back(net):
    net.box.mark_serial()
    assert "restarts" in net.arctl("system", "reboot")
    wait_for("the box stops answering", lambda: not reachable(net.box), 120)
    net.box.wait_answering()
    links = wait_for("the bond is there again", lambda: has(net, "bond0", "192.0.2.30/24"), 90)
    assert links["bond0"]["state"] == "up"
    status = net.box.api.get("/v1/system/status")
    assert status["hostname"] == "plant-7"
    # QEMU's battery is empty again at each start; what the box knew last stands until a server answers.
    assert abs(status["clock"]["now_ms"] / 1000 - time.time()) < 900
    clock = wait_for("the clock is set by the server of the object", lambda: synchronized(net.box), 120)
    assert clock["source"] == "192.0.2.1"


def test_it_switches_off_at_arctl_s_word(net):
    assert "switches" in net.arctl("system", "power-off")
    try:
        net.box.wait_off(120)
    except Impatient as err:
        raise net.box.complaint(err) from None
