"""Multicast DNS as a stranger on the LAN asks it, and as Avahi does; runs on a `Station`."""

from typing import Any

from harness.lan import Station
from harness.tools import tool

ASK = r"""
import json, socket, struct, sys, time
name, kind, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
question = struct.pack("!HHHHHH", 0, 0, 1, 0, 0, 0)
for label in name.rstrip(".").split("."):
    question += bytes([len(label)]) + label.encode()
question += b"\0" + struct.pack("!HH", kind, 0x0001)

def read_name(data, at):
    labels, end = [], None
    while True:
        length = data[at]
        if length & 0xC0 == 0xC0:
            end = end or at + 2
            at = (length & 0x3F) << 8 | data[at + 1]
        elif length == 0:
            return ".".join(labels), end or at + 1
        else:
            labels.append(data[at + 1:at + 1 + length].decode(errors="replace"))
            at += 1 + length

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", 5353))
index = socket.if_nametoindex("lan0")
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4s4si", socket.inet_aton("224.0.0.251"), bytes(4), index))
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("4s4si", bytes(4), bytes(4), index))
s.settimeout(0.3)
found, limit, asked = set(), time.time() + seconds, 0
while time.time() < limit:
    if time.time() - asked > 1:
        s.sendto(question, ("224.0.0.251", 5353)); asked = time.time()
    try:
        data, who = s.recvfrom(9000)
    except TimeoutError:
        continue
    _, flags, questions, answers, authority, more = struct.unpack_from("!HHHHHH", data)
    if not flags & 0x8000:
        continue
    at = 12
    for _ in range(questions):
        _, at = read_name(data, at); at += 4
    for _ in range(answers + authority + more):
        owner, at = read_name(data, at)
        type_, _, _, length = struct.unpack_from("!HHIH", data, at)
        at += 10
        body = data[at:at + length]
        if type_ == 12: value = read_name(data, at)[0]
        elif type_ == 1: value = socket.inet_ntoa(body)
        elif type_ == 28: value = socket.inet_ntop(socket.AF_INET6, body)
        elif type_ == 33: value = "%d %s" % (struct.unpack_from("!H", body, 4)[0], read_name(data, at + 6)[0])
        else: value = body.hex()
        at += length
        found.add((owner, type_, value, who[0]))
print(json.dumps(sorted(found)))
"""

PTR, A, AAAA, SRV = 12, 1, 28, 33


def ask(station: Station, name: str, kind: int, seconds: float = 4) -> list[list[Any]]:
    """Every record that came back within that time: [owner, type, value, who answered]."""
    return list(station.python(ASK, name, str(kind), str(seconds), seconds=seconds + 20))


def boxes(station: Station, seconds: float = 4) -> set[str]:
    """The instances of `_arint._tcp` on the LAN."""
    found = ask(station, "_arint._tcp.local", PTR, seconds)
    return {row[2].removesuffix("._arint._tcp.local") for row in found if row[1] == PTR and row[0] == "_arint._tcp.local"}


def addresses(station: Station, host: str, seconds: float = 4) -> set[str]:
    """The IPv4 addresses of `<host>.local`."""
    return {row[2] for row in ask(station, f"{host}.local", A, seconds) if row[1] == A and row[0].lower() == f"{host}.local".lower()}


AVAHI = r"""set -eu
mount -t tmpfs none /run
mkdir /run/dbus /run/avahi-daemon
# Inside a user name space only root exists, so Avahi's own user is called that here.
sed 's/^avahi:x:[0-9]*:[0-9]*:/avahi:x:0:0:/' /etc/passwd >/run/passwd
sed 's/^avahi:x:[0-9]*:/avahi:x:0:/' /etc/group >/run/group
mount --bind /run/passwd /etc/passwd
mount --bind /run/group /etc/group
printf '[server]\nuse-ipv4=yes\nuse-ipv6=yes\n[publish]\ndisable-publishing=yes\n' >/run/avahi.conf
dbus-daemon --session --address=unix:path=/run/dbus/bus --nofork --nopidfile >/dev/null 2>&1 &
while ! [ -S /run/dbus/bus ]; do sleep 0.1; done
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/dbus/bus
avahi-daemon --no-drop-root --no-chroot --no-rlimits --no-proc-title -f /run/avahi.conf >/run/avahi.log 2>&1 &
seconds=$1
for try in 1 2 3 4 5 6 7 8 9 10; do
    sleep 1
    avahi-browse --version >/dev/null && timeout 2 avahi-browse -t _none._tcp >/dev/null 2>&1 && break
done
timeout "$seconds" avahi-browse --resolve --parsable --no-db-lookup _arint._tcp 2>/dev/null | grep '^=' || true
if [ $# -gt 1 ]; then avahi-resolve-host-name -4 "$2" || true; avahi-resolve-host-name -6 "$2" || true; fi
kill %1 %2
"""


def avahi(station: Station, host: str, seconds: int = 8) -> tuple[list[list[str]], dict[str, str]]:
    """What Avahi on the station finds: the instances of `_arint._tcp` (interface, protocol, name, type, domain, host,
    address, port, text) and the addresses of `<host>.local` by family."""
    for name in ("avahi-daemon", "avahi-browse", "dbus-daemon"):
        tool(name)
    text = station.run("unshare", "--mount", "--pid", "--fork", "bash", "-c", AVAHI, "avahi", str(seconds), f"{host}.local",
                       seconds=seconds + 60)
    found = [line.split(";")[1:] for line in text.splitlines() if line.startswith("=")]
    names = [line.split("\t") for line in text.splitlines() if line.startswith(f"{host}.local\t")]
    return found, {"6" if ":" in address else "4": address for _, address in names}
