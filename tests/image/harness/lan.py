"""A virtual LAN without root: an Ethernet switch in this process, with faults to order.

Boxes connect with QEMU's `-netdev stream` to a Unix socket of their own, so that the switch knows who is who.
Between any two ports, in one direction, frames can be lost, delayed, doubled or cut off; the dice are seeded.
What passed is kept as a pcap file.

A `Station` is one more machine on the LAN: a network namespace of its own with a tap device whose frames this
process carries to and fro.  Programs run in it as they would on an admin's laptop that is plugged in there.
"""

import asyncio
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.tools import tool
from harness.waiting import patience

#: Most that a port may have waiting; more is lost, as in a real switch.
BACKLOG = 4 << 20


@dataclass
class Rule:
    """What happens to frames on the way from one port to another."""

    #: Share of frames that are lost, 0 to 1.
    drop: float = 0.0
    #: Seconds each frame is late.
    delay: float = 0.0
    #: Up to so many seconds more, by chance; frames overtake each other.
    jitter: float = 0.0
    #: Share of frames that come twice.
    duplicate: float = 0.0
    #: Largest frame that passes, bytes.
    mtu: int = 65536
    #: Nothing passes.
    cut: bool = False


@dataclass
class _Port:
    name: str
    path: Path
    writer: asyncio.StreamWriter | None = None


@dataclass
class Lan:
    """The switch.  `port(name)` gives the socket a box connects to."""

    folder: Path
    seed: int = 1
    rules: dict[tuple[str, str], Rule] = field(default_factory=dict)
    #: Frames that came from each port.
    frames: dict[str, int] = field(default_factory=dict)
    #: Access ports: the VLAN (IEEE 802.1Q) that a port is in without knowing it; all others are trunks.
    vlans: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._dice = random.Random(self.seed)
        self._ports: dict[str, _Port] = {}
        self._where: dict[bytes, str] = {}
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._pcap = (self.folder / "lan.pcap").open("wb")
        self._pcap.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lan", daemon=True)
        self._thread.start()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def port(self, name: str) -> Path:
        """The socket of the port of that name; the same one again after a restart of the box."""
        if name not in self._ports:
            port = _Port(name, self.folder / f"{name}.sock")
            port.path.unlink(missing_ok=True)
            self._ports[name] = port

            async def listen() -> None:
                self._servers.append(await asyncio.start_unix_server(lambda r, w: self._serve(port, r, w), port.path))

            self._do(listen())
        return self._ports[name].path

    # -- faults

    def between(self, one: str, other: str, rule: Rule, *, one_way: bool = False) -> None:
        """Sets what happens from `one` to `other`, and back unless `one_way`."""
        self.rules[(one, other)] = rule
        if not one_way:
            self.rules[(other, one)] = rule

    def partition(self, *sides: set[str]) -> None:
        """Only ports of the same side reach each other."""
        for side in sides:
            for other in sides:
                if side is not other:
                    for one in side:
                        for two in other:
                            self.rules[(one, two)] = Rule(cut=True)

    def heal(self) -> None:
        """Every rule is gone."""
        self.rules.clear()

    # -- frames

    async def _serve(self, port: _Port, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port.writer = writer
        self._writers.add(writer)
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(4), "big")
                self._switch(port.name, await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if port.writer is writer:
                port.writer = None
            writer.close()

    def _switch(self, source: str, frame: bytes) -> None:
        if len(frame) < 14:
            return
        self.frames[source] = self.frames.get(source, 0) + 1
        if source in self.vlans:
            frame = frame[:12] + self._tag(source) + frame[12:]
        now = time.time()
        self._pcap.write(struct.pack("<IIII", int(now), int(now % 1 * 1e6), len(frame), len(frame)) + frame)
        to, sender = frame[:6], frame[6:12]
        self._where[sender] = source
        known = None if to[0] & 1 else self._where.get(to)
        for name in [known] if known else list(self._ports):
            if name != source:
                self._pass(source, name, frame)

    def _pass(self, source: str, target: str, frame: bytes) -> None:
        rule = self.rules.get((source, target))
        if rule is None:
            self._deliver(target, frame)
            return
        if rule.cut or len(frame) - 14 > rule.mtu or self._dice.random() < rule.drop:
            return
        for _ in range(2 if self._dice.random() < rule.duplicate else 1):
            late = rule.delay + self._dice.random() * rule.jitter
            self._loop.call_later(late, self._deliver, target, frame) if late else self._deliver(target, frame)

    def _tag(self, port: str) -> bytes:
        return b"\x81\x00" + self.vlans[port].to_bytes(2, "big")

    def _deliver(self, target: str, frame: bytes) -> None:
        if target in self.vlans:
            if frame[12:14] != b"\x81\x00" or int.from_bytes(frame[14:16], "big") & 0xFFF != self.vlans[target]:
                return
            frame = frame[:12] + frame[16:]
        writer = self._ports[target].writer
        if writer is not None and writer.transport.get_write_buffer_size() < BACKLOG:
            writer.write(len(frame).to_bytes(4, "big") + frame)

    def close(self) -> None:
        """Ends the switch, and everything of it: what is left over is closed by the garbage collector, at a bad time."""

        async def end() -> None:
            for server in self._servers:
                server.close()
            carriers = asyncio.all_tasks() - {asyncio.current_task()}
            for carrier in carriers:
                carrier.cancel()
            await asyncio.gather(*carriers, return_exceptions=True)
            await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

        self._do(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
        self._pcap.close()


class Station:
    """A machine on the LAN that runs programs of this one: `station.run("curl", …)`."""

    def __init__(self, lan: Lan, name: str = "station", addresses: tuple[str, ...] = ("169.254.7.7/16",)) -> None:
        words = [tool("unshare"), "--user", "--map-root-user", "--net", "--mount", sys.executable, "-u",
                 "-m", "harness.lan", str(lan.port(name)), json.dumps(addresses)]
        here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        self._started: list[subprocess.Popen[bytes]] = []
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=here)
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode().strip()
        if not line.startswith("ready "):
            raise RuntimeError(f"the station on the LAN does not start ({line!r}): user namespaces and "
                               f"/dev/net/tun have to be allowed (kernel.unprivileged_userns_clone=1, modprobe tun)")
        self.pid = int(line.split()[1])

    def _inside(self, *argv: str) -> list[str]:
        return [tool("nsenter"), "--target", str(self.pid), "--user", "--net", "--preserve-credentials", *argv]

    def start(self, *argv: str, log: Path) -> None:
        """Starts a server on the station; it ends with it."""
        with log.open("ab") as file:
            process = subprocess.Popen(self._inside(*argv), stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        time.sleep(0.5)
        if process.poll() is not None:
            raise RuntimeError(f"`{' '.join(argv)}` on the station ended at once: {log.read_text(errors='replace')[-800:]}")
        self._started.append(process)

    def run(self, *argv: str, seconds: float = 30, check: bool = True) -> str:
        """Runs a program on the station and gives what it printed."""
        words = self._inside(*argv)
        done = subprocess.run(words, capture_output=True, timeout=seconds * patience(), check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"`{' '.join(argv)}` on the station ended with {done.returncode}: "
                               f"{done.stderr.decode(errors='replace')[-800:]}")
        return done.stdout.decode(errors="replace")

    def python(self, source: str, *argv: str, seconds: float = 60) -> Any:
        """Runs Python on the station; what it prints is JSON."""
        return json.loads(self.run(sys.executable, "-c", source, *argv, seconds=seconds))

    def close(self) -> None:
        """Unplugs it."""
        for process in self._started:
            process.kill()
            process.wait()
        self._process.kill()
        # Reads what is left of its pipes and closes them.
        self._process.communicate()


def _station(path: str, addresses: list[str]) -> None:
    """Inside the namespace: a tap device, and its frames carried to the switch and back."""
    import fcntl

    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"lan0", 0x0002 | 0x1000))
    for words in (["link", "set", "lo", "up"], ["link", "set", "lan0", "up"],
                  *(["address", "add", address, "dev", "lan0"] for address in addresses)):
        subprocess.run(["ip", *words], check=True)
    switch = socket.socket(socket.AF_UNIX)
    switch.connect(path)

    def carry(work: Callable[[], None]) -> None:
        try:
            while True:
                work()
        finally:
            os._exit(0)

    def out() -> None:
        frame = os.read(tap, 65536)
        switch.sendall(len(frame).to_bytes(4, "big") + frame)

    lines = switch.makefile("rb")

    def into() -> None:
        length = int.from_bytes(lines.read(4), "big")
        if not length:
            os._exit(0)
        os.write(tap, lines.read(length))

    for work in (out, into):
        threading.Thread(target=carry, args=(work,), daemon=True).start()
    print("ready", os.getpid(), flush=True)
    # Ends with the test: its standard input closes.
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _station(sys.argv[1], json.loads(sys.argv[2]))
