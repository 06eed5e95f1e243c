"""Runs services without a node, for tests: a pytest plug-in with the fixture `arint`.

A test invokes a service's class and looks at the answer.  What the service asks of
the outside is answered by what the test has declared; what it has not declared
fails, so no test calls another system by accident.

    pytest_plugins = ["arint.testing"]        # in conftest.py

    def test_an_order_is_booked(arint):
        arint.rest["CRM"].answers(json={"id": 4711}, status=201)
        answer = arint.request(CreateOrder, json={"item": "A-100"}, method="POST")
        assert (answer.status, answer.data) == (200, {"order_id": 4711})
        assert arint.rest["CRM"].calls[0].json == {"item": "A-100"}

The service goes the same way as in a worker: hooks, SimpleIO, Models, schemas,
errors and the form of the answer are those of a node.  Channels, security, rate
limits and time limits are the core's and are not here.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import os
import socket
import sys
from typing import Any, Callable, Iterator, Mapping
from urllib.parse import urlencode

import pytest

from arint import aio, dispatch, frames, jsons, life, loader, rest, runtime, userconfig
from arint.call import Call
from arint.service import Service

__all__ = ["Answer", "FakeConnection", "FakeService", "RESTCall", "Stage", "arint"]

_COME_FROM = {"path": "/", "query": "", "remote": "127.0.0.1:50000", "scheme": "http", "host": "localhost:11223"}


class Answer:
    """What a service answered."""

    def __init__(self, meta: Mapping[str, Any], body: bytes) -> None:
        #: The HTTP status.
        self.status: int = meta["status"]
        #: The headers the service set.
        self.headers: dict[str, Any] = dict(meta.get("headers") or {})
        #: The content type, or None where the channel's own would be taken.
        self.content_type: str | None = meta.get("content_type")
        #: The body.
        self.body = body
        #: `type`, `message` and `details` of what the service raised, or None.
        self.error: dict[str, Any] | None = meta.get("error")

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8")

    @property
    def data(self) -> Any:
        """The body read as JSON, or as text where it is none."""
        try:
            return jsons.loads(self.text)
        except ValueError:
            return self.text

    def __repr__(self) -> str:
        what = self.error or self.body[:200]
        return f"<Answer {self.status} {what!r}>"


class RESTCall:
    """A call that a service made on an outgoing connection."""

    def __init__(self, meta: dict[str, Any], body: bytes) -> None:
        #: For example `POST`.
        self.method: str = meta["method"]
        #: The parts of the address in braces.
        self.path_params: dict[str, str] = meta["path_params"]
        #: Names and values of the query string.
        self.query: list[tuple[str, str]] = [(name, value) for name, value in meta["query"]]
        #: The headers.
        self.headers: dict[str, str] = meta["headers"]
        #: The body.
        self.body = body
        #: The time limit the service gave, milliseconds, or None.
        self.timeout_ms: int | None = meta["timeout_ms"]

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8")

    @property
    def json(self) -> Any:
        """The body read as JSON."""
        return jsons.loads(self.text)

    def __repr__(self) -> str:
        return f"<RESTCall {self.method} {self.path_params} {self.query} {self.body[:200]!r}>"


_Made = tuple[dict[str, Any], bytes]


class FakeConnection:
    """An outgoing REST connection as a test declares it."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: The calls that services made, in order.
        self.calls: list[RESTCall] = []
        self._answers: list[Callable[[RESTCall], _Made]] = []
        self._about: dict[str, Any] = {
            "data_format": "json",
            "content_type": None,
            "address": f"http://{name.lower()}.test/",
            "url_path": "/",
            "is_active": True,
            "method": None,
        }

    def configured(
        self, *, url_path: str = "/", data_format: str = "json", content_type: str | None = None, is_active: bool = True
    ) -> FakeConnection:
        """Says how the connection is configured; `url_path` matters where it has parts in braces."""
        self._about |= {
            "url_path": url_path,
            "data_format": data_format,
            "content_type": content_type,
            "is_active": is_active,
        }
        return self

    def answers(
        self,
        text: str | bytes = b"",
        *,
        json: Any = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> FakeConnection:
        """Declares an answer.  Several are given one after another; the last one stays."""
        if json is not None:
            body, content_type = jsons.dumps(json).encode("utf-8"), "application/json"
        else:
            body = text if isinstance(text, bytes) else text.encode("utf-8")
            content_type = "text/plain; charset=utf-8"
        pairs = {"content-type": content_type, **(headers or {})}
        meta = {
            "status": status,
            "reason": "",
            "url": f"http://{self.name.lower()}.test{self._about['url_path']}",
            "headers": [[name, value] for name, value in pairs.items()],
            "elapsed_ms": 0.1,
        }
        self._answers.append(lambda _: (meta, body))
        return self

    def fails(self, kind: str = "connection", message: str = "declared by the test") -> FakeConnection:
        """Declares a failure: `connection`, `timeout`, `inactive`, `circuit-open` or `refused`."""
        if kind not in ("connection", "timeout", "inactive", "circuit-open", "refused"):
            raise ValueError(f"`{kind}` is not a kind of failure: connection, timeout, inactive, circuit-open or refused")
        self._answers.append(lambda _: ({"error": {"type": kind, "message": message}}, b""))
        return self

    def answers_with(self, function: Callable[[RESTCall], Any]) -> FakeConnection:
        """Declares a function that is given each call and returns what is to be answered as JSON, or a status with it."""

        def answer(call: RESTCall) -> _Made:
            given = function(call)
            status, value = given if isinstance(given, tuple) else (200, given)
            made = FakeConnection(self.name).answers(json=value, status=status)
            return made._answers[0](call)

        self._answers.append(answer)
        return self

    def _answer(self, meta: dict[str, Any], body: bytes) -> _Made:
        call = RESTCall(meta, body)
        self.calls.append(call)
        if not self._answers:
            raise KeyError(f"connection `{self.name}` has no answer in this test: declare one with `answers(…)`")
        answer = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
        return answer(call)


class FakeService:
    """A service that is not loaded, as a test declares it."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: The payloads it was invoked with, in order.
        self.calls: list[Any] = []
        self._answers: list[_Made] = []

    def answers(self, payload: Any = "") -> FakeService:
        """Declares what it answers.  Several are given one after another; the last one stays."""
        is_text = isinstance(payload, str)
        body = payload if is_text else jsons.dumps(payload)
        content_type = "text/plain" if is_text else "application/json"
        self._answers.append(({"status": 200, "content_type": content_type, "headers": {}}, body.encode("utf-8")))
        return self

    def fails(self, status: int = 500, kind: str = "Exception", details: Any = None) -> FakeService:
        """Declares that it fails."""
        error = {"type": kind, "message": f"{kind}: {details}", "details": details}
        self._answers.append(({"status": status, "headers": {}, "error": error}, b""))
        return self

    def _answer(self, body: bytes) -> _Made:
        self.calls.append(jsons.loads(body.decode("utf-8")) if body else "")
        if not self._answers:
            raise KeyError(f"service `{self.name}` has no answer in this test: declare one with `answers(…)`")
        return self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)


class _Declared(dict[str, Any]):
    """Declarations by name, made when they are first asked for."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> Any:
        self[name] = made = self._make(name)
        return made


class Stage:
    """What a test works with: the fixture `arint`."""

    def __init__(self) -> None:
        self._core = _Core(self)
        self._clear()

    def _clear(self) -> None:
        self._core.hello = {"worker": "test", "kvdb": None}
        self._core.sent.clear()
        #: Outgoing REST connections by name; see `FakeConnection`.
        self.rest: Any = _Declared(FakeConnection)
        #: Services that are not loaded, by name; see `FakeService`.
        self.services: Any = _Declared(FakeService)
        #: SQLAlchemy addresses of databases by name, for example `sqlite:////tmp/x.db`.
        self.sql: dict[str, str] = {}
        #: Folders of connections of type `files` by name, for example `tmp_path`.
        self.files: dict[str, str | os.PathLike[str]] = {}
        #: What services started and did not wait for: the documents of docs/worker-protocol.md.
        self.later: list[dict[str, Any]] = []
        self._last_ident = 0
        dispatch.plans.clear()
        dispatch.inactive = frozenset()
        userconfig.replace(None)
        rest._infos.clear()
        self._forget_kvdb()

    # Services

    def load(self, *files: str | os.PathLike[str]) -> None:
        """Loads files of services, with the checks of a deployment."""
        for file in files:
            path = os.path.abspath(os.fspath(file))
            folder, name = os.path.split(path)
            entry = {"name": name.removesuffix(".py"), "file": name, "names": None}
            dispatch.plans.update(loader.load(folder, [entry]))

    def add(self, cls: type[Service]) -> Any:
        """Makes a class known, with every other service of its module; returns its plan."""
        known = cls.__dict__.get("_plan")
        if known is None or dispatch.plans.get(known.name) is not known:
            module = sys.modules[cls.__module__]
            entry = {"name": module.__name__, "file": os.path.basename(module.__file__ or module.__name__), "names": None}
            for plan in loader._services_of(module, entry):
                dispatch.plans[plan.name] = plan
            known = cls.__dict__.get("_plan")
        if known is None:
            raise TypeError(f"`{cls.__name__}` is no service that could be deployed: it is not a class of its module's top level")
        return known

    def configure(self, user_config: dict[str, dict[str, dict[str, Any]]]) -> None:
        """Sets `self.user_config`: file, section, key."""
        userconfig.replace(user_config)

    def use_kvdb(self, **address: Any) -> None:
        """Connects `self.kvdb` and `self.cache` to a store that runs: `host` and `port`, or `unix_socket_path`."""
        self._core.hello["kvdb"] = address
        self._forget_kvdb()

    def _forget_kvdb(self) -> None:
        if "arint.kvdb" in sys.modules:
            sys.modules["arint.kvdb"].forget()

    # Calls

    def invoke(self, service: type[Service] | str, payload: Any = "", *, channel: str = "invoke") -> Answer:
        """Invokes a service as another one does, or as `arctl invoke`."""
        body = b"" if payload == "" or payload is None else jsons.dumps(payload).encode("utf-8")
        return self._run(service, channel, "dict", None, b"", body)

    def request(
        self,
        service: type[Service] | str,
        *,
        method: str = "GET",
        json: Any = None,
        body: str | bytes = b"",
        data_format: str = "json",
        params: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        path: str = "/",
        security: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Sends a service what a REST channel would: `params` are the parts of the path in braces."""
        raw = jsons.dumps(json).encode("utf-8") if json is not None else body
        channel = {"id": 1, "name": "test", "type": "http-soap", "data_format": data_format, "is_internal": False}
        document = _COME_FROM | {
            "path": path,
            "query": urlencode(query or {}, doseq=True),
            "headers": [[name.lower(), value] for name, value in (headers or {}).items()],
            "params": dict(params or {}),
            "channel": channel | {"match_target": f":::{method}:::*/*:::{path}", "security": security},
            "url_params_pri": "qs-over-path",
            "params_pri": "channel-params-over-msg",
            "merge_url_params_req": True,
        }
        http = jsons.dumps(document).encode("utf-8")
        raw = raw if isinstance(raw, bytes) else raw.encode("utf-8")
        return self._run(service, "http-soap", data_format, method, http, raw)

    def _run(
        self, service: type[Service] | str, channel: str, data_format: str, method: str | None, http: bytes, body: bytes
    ) -> Answer:
        if isinstance(service, str):
            plan = dispatch.plans.get(service)
            if plan is None:
                known = ", ".join(sorted(dispatch.plans)) or "none"
                raise KeyError(f"service `{service}` is not loaded in this test: use its class, or `load`; loaded: {known}")
        else:
            plan = self.add(service)
        self._last_ident += 1
        ident = self._last_ident
        call = Call(ident, plan, os.urandom(12).hex(), channel, data_format, method, None, http, body)
        context = contextvars.copy_context()
        context.run(runtime.current_call.set, call)
        if plan.is_async:
            meta, answer = self._run_async(call, context)
        else:
            meta, answer = context.run(life.run_call, call)
            if not isinstance(answer, bytes):
                context.run(answer.run, self._core, meta)
        if isinstance(answer, bytes):
            return Answer(jsons.loads(meta.decode("utf-8")), answer)
        head, pieces = self._core.sent.pop(ident)
        return Answer(head, bytes(pieces))

    def _run_async(self, call: Call, context: contextvars.Context) -> tuple[bytes, Any]:
        aio.start(self._core)

        async def run() -> tuple[bytes, Any]:
            runtime.current_call.set(call)
            meta, answer = await life.run_call_async(call)
            if not isinstance(answer, bytes):
                await answer.run_async(self._core, meta)
            return meta, answer

        return asyncio.run_coroutine_threadsafe(run(), aio.loop()).result()

    # The core's part

    def answer_of_core(self, meta: dict[str, Any], body: bytes) -> _Made:
        """Answers what a service asks of the outside."""
        op = meta["op"]
        if op == "rest":
            return self._connection(meta["conn"])._answer(meta, body)
        if op == "rest_info":
            return self._connection(meta["conn"])._about, b""
        if op == "rest_ping":
            empty: dict[str, Any] = {"method": "HEAD", "path_params": {}, "query": [], "headers": {}, "timeout_ms": None}
            return self._connection(meta["conn"])._answer(empty, b"")
        if op == "invoke":
            name = meta["service"]
            if name not in self.services:
                raise KeyError(
                    f"service `{name}` is neither loaded nor declared in this test: "
                    f"use `arint.load`, or `arint.services[{name!r}].answers(…)`"
                )
            fake: FakeService = self.services[name]
            return fake._answer(body)
        if op == "later":
            self.later.append(jsons.loads(body.decode("utf-8")))
            return {}, b""
        if op == "sql":
            url = self.sql.get(meta["name"])
            if url is None:
                return {"error": {"type": "not-found", "message": f"`{meta['name']}` is not declared in this test"}}, b""
            return {"url": url, "pool_size": 1}, b""
        if op == "files":
            from arint.testing_files import answer

            return answer(self.files.get(meta["conn"]), meta, body)
        if op == "crypto":
            # No secret to keep: a form that is not the plain text is enough to see that both ways are used.
            if meta["action"] == "encrypt":
                return {}, b"test:" + base64.urlsafe_b64encode(body)
            if not body.startswith(b"test:"):
                return {"error": {"type": "bad-request", "message": "this is no token of this test"}}, b""
            return {}, base64.urlsafe_b64decode(body[5:])
        raise NotImplementedError(f"`{op}` needs a node and cannot be answered in a test")

    def _connection(self, name: str) -> FakeConnection:
        if name not in self.rest:
            raise KeyError(
                f"outgoing connection `{name}` is not declared in this test: use `arint.rest[{name!r}].answers(…)`"
            )
        connection: FakeConnection = self.rest[name]
        return connection


class _Core(runtime.Runtime):
    """Stands in for the connection to the core."""

    def __init__(self, stage: Stage) -> None:
        # Nothing is ever written to it: `send` takes everything.
        ours, self._theirs = socket.socketpair()
        super().__init__(ours)
        self.open_slots(None)
        self._stage = stage
        #: Streamed answers by call id, as far as they have come.
        self.sent: dict[int, tuple[dict[str, Any], bytearray]] = {}

    def send(self, frame: bytes) -> None:
        """Takes what the worker's end sends: the pieces of streamed answers; the rest is for a core."""
        decoder = frames.Decoder()
        kind, ident, payload = _only_frame(decoder, frame)
        if kind == frames.RESULT:
            meta, first = frames.split_meta(payload)
            self.sent[ident] = (meta, bytearray(first))
        elif kind == frames.CHUNK:
            self.sent[ident][1].extend(payload)
            stream = self.streams.get(ident)
            if stream is not None:
                stream.grant(len(payload))
        elif kind == frames.END:
            error = jsons.loads(str(payload, "utf-8")).get("error")
            if error:
                self.sent[ident][0]["error"] = {"type": "BrokenOff", "message": error, "details": None}

    def request(self, meta: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Answers what a service asks."""
        return self._stage.answer_of_core(meta, body)

    def ask(self, meta: dict[str, Any], body: bytes, tell: Callable[[dict[str, Any], bytes], None]) -> None:
        """Answers what a coroutine asks."""
        tell(*self._stage.answer_of_core(meta, body))

    def block(self) -> None:
        """Nobody else waits for this thread."""

    def unblock(self) -> None:
        """Nobody else waits for this thread."""


def _only_frame(decoder: frames.Decoder, frame: bytes) -> frames.Frame:
    rest_of = memoryview(frame)

    def read(into: memoryview) -> int:
        nonlocal rest_of
        size = min(len(into), len(rest_of))
        into[:size] = rest_of[:size]
        rest_of = rest_of[size:]
        return size

    while True:
        found = decoder.next()
        if found is not None:
            return found
        if decoder.fill(read) == 0:
            raise frames.FrameError("a frame is cut off")


_stage: Stage | None = None


@pytest.fixture
def arint() -> Iterator[Stage]:
    """A stage for one test; what it declared is gone afterwards."""
    global _stage
    if _stage is None:
        # One for the whole run: the event loop of coroutines belongs to it.
        _stage = Stage()
        runtime.install(_stage._core)
    _stage._clear()
    yield _stage
    _stage._clear()
