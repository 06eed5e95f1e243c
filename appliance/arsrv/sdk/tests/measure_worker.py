"""Measures a worker: start-up, memory, and microseconds per call.  Not a test.

    PYTHONPATH=src:tests python tests/measure_worker.py [--calls 40000] [--python /usr/bin/python3]

`wall` is from the first frame sent to the last RESULT read; `cpu` is the worker's own time in user mode and kernel.
With a depth of 1 each call waits for the one before; with more, that many are in the socket at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from arint import frames
from harness import Core

MODULE = """
from zato.server.service import Service

class Echo(Service):
    def handle(self):
        self.response.payload = self.request.payload

class Declared(Service):
    input = 'name', '-amount'
    output = 'greeting'
    def handle(self):
        self.response.payload.greeting = 'hello ' + self.request.input.name

class Logs(Service):
    def handle(self):
        self.logger.info('payload %s', self.request.payload)

class Inner(Service):
    def handle(self):
        self.response.payload = {'a': 1}

class Invokes(Service):
    def handle(self):
        self.response.payload = self.invoke('load.inner', {'a': 1})

class Coroutine(Service):
    async def handle(self):
        self.response.payload = {'a': 1}
"""

BODY = b'{"name":"Ann","amount":12,"items":["a","b","c"],"address":{"city":"Krakow"}}'
HTTP = {
    "path": "/load/echo",
    "query": "",
    "headers": [["host", "box:11223"], ["content-type", "application/json"], ["user-agent", "wrk"], ["accept", "*/*"]],
    "params": {},
    "remote": "192.0.2.7:50112",
    "scheme": "http",
    "host": "box:11223",
    "channel": {"id": 1, "name": "load", "type": "http-soap", "data_format": "json", "security": None},
    "url_params_pri": "qs-over-path",
    "params_pri": "channel-params-over-msg",
    "merge_url_params_req": True,
}


def run(core: Core, service: str, depth: int, calls: int) -> tuple[float, float]:
    """Wall and processor time for that many calls, in microseconds each."""
    meta = {
        "service": service,
        "cid": "0123456789abcdef01234567",
        "channel": "http-soap",
        "data_format": "json",
        "method": "POST",
        "timeout_ms": 30000,
        "environ": None,
    }
    meta_json = json.dumps(meta).encode()
    http_json = json.dumps(HTTP).encode()
    core.results.clear()
    cpu = core.cpu_s()
    started = time.perf_counter()
    for _ in range(calls // depth):
        first = core.next_id
        core.next_id += depth
        core.send(b"".join(frames.call(first + n, meta_json, http_json, BODY) for n in range(depth)))
        while len(core.results) < depth:
            core.pump()
        assert all(result.status == 200 for result in core.results.values()), core.results
        core.results.clear()
        core.order.clear()
        core.logs.clear()
    wall = time.perf_counter() - started
    return wall / calls * 1e6, (core.cpu_s() - cpu) / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=40_000)
    parser.add_argument("--python", default=sys.executable)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "load.py").write_text(MODULE)
        starts = []
        for _ in range(5):
            with Core(Path(folder), ["load"], python=chosen.python) as core:
                starts.append(core.ready_after)
        (Path(folder) / "load.py").write_text(MODULE.replace("async def", "def"))
        with Core(Path(folder), ["load"], python=chosen.python) as core:
            core.call("load.echo", BODY)
            print(f"memory idle, no coroutines  {core.rss_kib() / 1024:7.1f} MiB")
        (Path(folder) / "load.py").write_text(MODULE)
        print(f"start to READY, best of 5   {min(starts) * 1000:7.1f} ms")
        with Core(Path(folder), ["load"], python=chosen.python) as core:
            for service in ("echo", "declared", "logs", "invokes", "coroutine"):
                for depth in (1, 16):
                    run(core, f"load.{service}", depth, 1000)
                    wall, cpu = run(core, f"load.{service}", depth, chosen.calls)
                    print(f"{service:<12} depth {depth:>2}   wall {wall:6.1f} µs   cpu {cpu:6.1f} µs")
            print(f"memory at the end           {core.rss_kib() / 1024:7.1f} MiB")


if __name__ == "__main__":
    main()
