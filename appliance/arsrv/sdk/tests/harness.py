"""The core's end of the worker protocol, for tests and measurements.

`Core` starts a real worker process and speaks frames with it.  Whatever arrives
is sorted by kind; waiting is always for one particular frame, with a limit, and
never for time to pass.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

from arint import frames

SRC = Path(__file__).resolve().parent.parent / "src"
SERVICES = Path(__file__).resolve().parent / "services"
LIMIT_S = 20.0

#: A module that keeps the watcher from taking the lead, so that only what hands it over by itself lets others run.
UNWATCHED = "from arint import runtime\nruntime._WATCH_EVERY_S = 3600\n"

Responder = Callable[[dict[str, Any], bytes], "tuple[dict[str, Any], bytes] | None"]


class Died(Exception):
    """The worker closed its end."""


class Result:
    """A RESULT as tests look at it."""

    def __init__(self, meta: dict[str, Any], body: bytes) -> None:
        self.meta = meta
        self.body = body
        self.status: int = meta["status"]
        self.headers: dict[str, Any] = meta.get("headers") or {}
        self.content_type = meta.get("content_type")
        self.error = meta.get("error")

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def details(self) -> Any:
        assert self.error is not None, f"the service did not fail but answered {self.body!r}"
        return self.error["details"]

    def __repr__(self) -> str:
        return f"Result({self.meta}, {self.body[:200]!r})"


class Core:
    """A worker process, and the core's side of its socket."""

    def __init__(
        self,
        modules_dir: Path = SERVICES,
        modules: list[str] | None = None,
        *,
        respond: Responder | None = None,
        python: str = sys.executable,
        start: bool = True,
        **hello: Any,
    ) -> None:
        ours, theirs = socket.socketpair()
        self.sock = ours
        self.respond = respond
        fd, self.slots_path = tempfile.mkstemp(suffix=".slots")
        os.ftruncate(fd, 8 * 1025)
        self.slots = memoryview(mmap.mmap(fd, 8 * 1025)).cast("Q")
        os.close(fd)
        self.stdout = tempfile.TemporaryFile()
        self.stderr = tempfile.TemporaryFile()
        env = dict(os.environ, PYTHONPATH=str(SRC), TZ="UTC")
        self.started_at = time.perf_counter()
        self.process = subprocess.Popen(
            [python, "-X", "utf8", "-m", "arint.worker"],
            stdin=theirs,
            stdout=self.stdout,
            stderr=self.stderr,
            env=env,
            close_fds=True,
        )
        theirs.close()
        self.decoder = frames.Decoder()
        self.next_id = 1
        self.results: dict[int, Result] = {}
        self.order: list[int] = []
        self.pongs: list[int] = []
        self.logs: list[dict[str, Any]] = []
        self.steps: list[dict[str, Any]] = []
        self.requests: list[tuple[dict[str, Any], bytes]] = []
        self.held: list[tuple[int, dict[str, Any], bytes]] = []
        #: What came of streamed answers behind their RESULT, by call id; and how they ended.
        self.chunks: dict[int, bytes] = {}
        self.ends: dict[int, dict[str, Any]] = {}
        self.ready: dict[str, Any] | None = None
        self.failed: dict[str, Any] | None = None
        document: dict[str, Any] = {
            "protocol": 1,
            "worker": "test-1",
            "threads": 16,
            "slots": self.slots_path,
            "modules_dir": str(modules_dir),
            "modules": [
                {"name": name, "file": name.replace(".", "/") + ".py", "names": None}
                for name in (modules if modules is not None else all_modules(modules_dir))
            ],
            "user_config": {},
            "kvdb": None,
            "return_tracebacks": True,
            "debug": False,
        }
        document.update(hello)
        if start:
            self.send(frames.with_json(frames.HELLO, 0, document))
            self.wait(lambda: self.ready is not None or self.failed is not None, "READY or FAILED")
            self.ready_after = time.perf_counter() - self.started_at

    # Frames

    def send(self, frame: bytes) -> None:
        self.sock.sendall(frame)

    def pump(self, limit_s: float = LIMIT_S) -> None:
        """Reads once and sorts what has come; raises Died at the end of the stream."""
        frame = self.decoder.next()
        if frame is None:
            readable, _, _ = select.select([self.sock], [], [], limit_s)
            if not readable:
                raise AssertionError(f"nothing came from the worker within {limit_s} s; {self.state()}")
            try:
                got = self.decoder.fill(self.sock.recv_into)
            except ConnectionResetError:
                got = 0
            if got == 0:
                raise Died(self.state())
            frame = self.decoder.next()
        while frame is not None:
            self.take(*frame)
            frame = self.decoder.next()

    def take(self, kind: int, ident: int, payload: Any) -> None:
        if kind == frames.RESULT:
            self.results[ident] = Result(*frames.split_meta(payload))
            self.order.append(ident)
        elif kind == frames.CHUNK:
            self.chunks[ident] = self.chunks.get(ident, b"") + bytes(payload)
        elif kind == frames.END:
            self.ends[ident] = json.loads(bytes(payload))
        elif kind == frames.LOG:
            self.logs.append({**json.loads(bytes(payload)), "id": ident})
        elif kind == frames.STEP:
            self.steps.append({**json.loads(bytes(payload)), "id": ident})
        elif kind == frames.PONG:
            self.pongs.append(ident)
        elif kind == frames.READY:
            self.ready = json.loads(bytes(payload))
        elif kind == frames.FAILED:
            self.failed = json.loads(bytes(payload))
        elif kind == frames.REQUEST:
            meta, body = frames.split_meta(payload)
            self.requests.append((meta, body))
            answer = self.respond(meta, body) if self.respond is not None else None
            if answer is None:
                self.held.append((ident, meta, body))
            else:
                self.reply(ident, *answer)
        else:
            raise AssertionError(f"a worker does not send frames of kind {kind}")

    def reply(self, ident: int, meta: dict[str, Any], body: bytes = b"") -> None:
        self.send(frames.with_meta(frames.REPLY, ident, json.dumps(meta).encode(), body))

    def wait(self, done: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
        until = time.monotonic() + limit_s
        while not done():
            left = until - time.monotonic()
            if left <= 0:
                raise AssertionError(f"{what} did not come within {limit_s} s; {self.state()}")
            self.pump(left)

    def state(self) -> str:
        self.stderr.seek(0)
        return (
            f"exit code {self.process.poll()}, results {self.results}, logs {self.logs[-5:]}, "
            f"failed {self.failed}, stderr {self.stderr.read().decode('utf-8', 'replace')[-2000:]}"
        )

    # Calls

    def begin(
        self,
        service: str,
        body: bytes | str | dict[str, Any] | list[Any] = b"",
        *,
        channel: str = "http-soap",
        data_format: str = "json",
        method: str | None = "POST",
        cid: str = "0123456789abcdef01234567",
        environ: dict[str, Any] | None = None,
        http: dict[str, Any] | None = None,
        path: str = "/test",
        query: str = "",
        params: dict[str, str] | None = None,
        headers: list[list[str]] | None = None,
        **http_more: Any,
    ) -> int:
        """Sends a CALL and gives its id."""
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode("utf-8")
        ident = self.next_id
        self.next_id += 1
        meta = {
            "service": service,
            "cid": cid,
            "channel": channel,
            "data_format": data_format,
            "method": method if channel == "http-soap" else None,
            "timeout_ms": 30000,
            "environ": environ,
        }
        http_json = b""
        if channel == "http-soap":
            document = {
                "path": path,
                "query": query,
                "headers": headers or [["content-type", "application/json"], ["user-agent", "tests/1.0"]],
                "params": params or {},
                "remote": "192.0.2.7:50112",
                "scheme": "http",
                "host": "box:11223",
                "channel": {
                    "id": 12,
                    "name": "test.channel",
                    "type": "http-soap",
                    "data_format": data_format,
                    "is_internal": False,
                    "match_target": f"{method}{path}",
                    "security": {"id": 3, "name": "crm", "type": "basic_auth", "username": "crm-user"},
                },
                "url_params_pri": "qs-over-path",
                "params_pri": "channel-params-over-msg",
                "merge_url_params_req": True,
                **(http or {}),
                **http_more,
            }
            http_json = json.dumps(document).encode()
        self.send(frames.call(ident, json.dumps(meta).encode(), http_json, body))
        return ident

    def end(self, ident: int, limit_s: float = LIMIT_S) -> Result:
        """Waits for a call's RESULT."""
        self.wait(lambda: ident in self.results, f"the result of call {ident}", limit_s)
        return self.results[ident]

    def call(self, service: str, body: Any = b"", **kwargs: Any) -> Result:
        """A CALL and its RESULT."""
        return self.end(self.begin(service, body, **kwargs))

    def stream(self, service: str, body: Any = b"", *, credit: int = 1 << 30, **kwargs: Any) -> tuple[Result, bytes, dict[str, Any]]:
        """A CALL whose answer is streamed: its RESULT, everything that came, and its END."""
        ident = self.begin(service, body, **kwargs)
        result = self.end(ident)
        assert result.meta.get("stream"), result
        self.grant(ident, credit)
        self.wait(lambda: ident in self.ends, f"the end of call {ident}")
        return result, result.body + self.chunks.get(ident, b""), self.ends[ident]

    def grant(self, ident: int, count: int) -> None:
        """A CREDIT."""
        self.send(frames.plain(frames.CREDIT, ident, struct.pack("<I", count)))

    def cancel(self, ident: int) -> None:
        """A CANCEL."""
        self.send(frames.empty(frames.CANCEL, ident))

    def ping(self, ident: int = 7) -> None:
        self.send(frames.empty(frames.PING, ident))
        self.wait(lambda: ident in self.pongs, "PONG")

    def log_of(self, part: str) -> dict[str, Any]:
        """The log record whose message has this part."""
        self.wait(lambda: any(part in log["message"] for log in self.logs), f"a log line with {part!r}")
        return next(log for log in self.logs if part in log["message"])

    # The process

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_exit(self, limit_s: float = LIMIT_S) -> int:
        return self.process.wait(limit_s)

    def close(self) -> None:
        self.sock.close()
        if self.process.poll() is None:
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        self.stdout.close()
        self.stderr.close()
        os.unlink(self.slots_path)

    def __enter__(self) -> Core:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def all_modules(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.py"))


def raw_head(length: int, kind: int, ident: int) -> bytes:
    """A frame's head as it says, also where it lies."""
    return struct.pack("<IBQ", length, kind, ident)
