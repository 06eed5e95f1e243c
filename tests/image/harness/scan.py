"""Every TCP port of a box, tried from the LAN; runs on a `Station`."""

from harness.lan import Station

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
