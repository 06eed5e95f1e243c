"""What a box answers to the LAN: every TCP port, its console, its time; runs on a `Station`."""

from harness.lan import Station

#: What a box listens on for everybody (docs/user/admin/security-of-the-box.md).
TCP_PORTS = [8183, 11223]
#: The same of UDP: multicast DNS, time; 68 and 546 are the box's own questions to DHCP servers.
UDP_PORTS = {5353, 123, 68, 546}

SCAN = r"""
import asyncio, json, sys
host = sys.argv[1]
async def main():
    open_ports, gate = [], asyncio.Semaphore(400)
    async def one(port):
        async with gate:
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), 8)
            except (OSError, TimeoutError, asyncio.TimeoutError):
                return
            open_ports.append(port)
            writer.close()
    await asyncio.gather(*(one(port) for port in range(1, 65536)))
    print(json.dumps(sorted(open_ports)))
asyncio.run(main())
"""


def tcp_ports(station: Station, address: str) -> list[int]:
    """The ports that take a connection."""
    return list(station.python("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))\n" + SCAN,
                               address, seconds=300))


GET = r"""
import http.client, json, ssl, sys
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
c = http.client.HTTPSConnection(sys.argv[1], 8183, timeout=20, context=context)
c.request("GET", sys.argv[2]); r = c.getresponse()
print(json.dumps([r.status, r.read().decode(errors="replace")]))
"""


def https_get(station: Station, address: str, path: str) -> tuple[int, str]:
    """One request to the console, from the LAN."""
    status, text = station.python(GET, address, path, seconds=60)
    return int(status), str(text)


NTP = r"""
import json, socket, struct, sys, time
family, kind, _, _, where = socket.getaddrinfo(sys.argv[1], 123, type=socket.SOCK_DGRAM)[0]
s = socket.socket(family, kind); s.settimeout(5)
sent = time.time()
s.sendto(b"\x23" + bytes(39) + b"12345678", where)
try:
    data = s.recv(200)
except (TimeoutError, ConnectionError):
    print("null"); sys.exit()
got = time.time()
assert len(data) == 48 and data[24:32] == b"12345678" and data[0] & 7 == 4, data
seconds, fraction = struct.unpack("!II", data[40:48])
print(json.dumps([data[1], seconds - 2208988800 + fraction / 2**32 - (sent + got) / 2]))
"""


def ntp(station: Station, address: str) -> tuple[int, float] | None:
    """The stratum of a box's clock and how far it is from the station's, seconds; None if it does not say."""
    told = station.python(NTP, address)
    return (int(told[0]), float(told[1])) if told else None
