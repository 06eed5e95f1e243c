"""Answers that are sent piece by piece."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from harness import Core

MODULE = '''
import time
from arint import Event, Service

closed = []

class Ticks(Service):
    name = 'ticks'
    def handle(self):
        self.response.headers['X-Kind'] = 'ticks'
        self.response.payload = self.ticks()
    def ticks(self):
        yield {'n': 1}
        yield 'two\\nlines'
        yield Event({'n': 3}, event='tick', id=7, retry=100)
        yield None
        yield 'data: by hand\\n\\n'

class Lines(Service):
    name = 'lines'
    def handle(self):
        self.response.content_type = 'application/x-ndjson'
        self.response.payload = ({'n': n} for n in range(3))

class Big(Service):
    name = 'big'
    def handle(self):
        self.response.payload = (bytes([65 + n % 26]) * 70000 for n in range(self.request.payload['pieces']))

class Forever(Service):
    name = 'forever'
    def handle(self):
        self.response.payload = self.pieces()
    def pieces(self):
        try:
            while True:
                yield b'x' * 1000
        finally:
            closed.append(self.cid)

class Closed(Service):
    name = 'closed'
    def handle(self):
        self.response.payload = {'closed': closed}

class FailsAtOnce(Service):
    name = 'fails-at-once'
    def handle(self):
        self.response.payload = self.pieces()
    def pieces(self):
        raise ValueError('no first piece')
        yield 1

class FailsLater(Service):
    name = 'fails-later'
    def handle(self):
        self.response.payload = self.pieces()
    def pieces(self):
        yield 'one'
        raise ValueError('no second piece')

class Nothing(Service):
    name = 'nothing'
    def handle(self):
        self.response.payload = iter(())

class File(Service):
    name = 'file'
    def handle(self):
        self.response.payload = open(__file__, 'rb')

class Inner(Service):
    name = 'inner'
    def handle(self):
        self.response.payload = ['a', *self.invoke('lines')]

class Talks(Service):
    name = 'talks'
    def handle(self):
        self.response.payload = (self.kvdb_free(n) for n in range(3))
    def kvdb_free(self, n):
        return self.rest['CRM'].get({'n': n}).text
'''

ASYNC = '''
import asyncio
from arint import Service

closed = []

class Ticks(Service):
    name = 'a.ticks'
    async def handle(self):
        self.response.payload = self.ticks()
    async def ticks(self):
        for n in range(3):
            await asyncio.sleep(0.001)
            yield {'n': n}

class Sleeps(Service):
    name = 'a.sleeps'
    async def handle(self):
        self.response.payload = self.ticks()
    async def ticks(self):
        try:
            yield 'begun'
            await asyncio.sleep(3600)
        finally:
            closed.append(self.cid)

class Closed(Service):
    name = 'a.closed'
    async def handle(self):
        self.response.payload = {'closed': closed}

class Plain(Service):
    name = 'a.plain'
    async def handle(self):
        self.response.payload = (b'p' * 100000 for n in range(10))
'''

CRM = {"data_format": "", "content_type": None, "address": "http://crm", "url_path": "/", "is_active": True, "method": None}


def _crm(meta: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    if meta["op"] == "rest_info":
        return CRM, b""
    return {"status": 200, "reason": "OK", "url": "http://crm/", "headers": [], "elapsed_ms": 1}, meta["query"][0][1].encode()


@pytest.fixture
def core(deploy: Any) -> Core:
    running: Core = deploy(hello={"respond": _crm}, streams=MODULE, coro=ASYNC)
    assert running.failed is None, running.failed
    return running


def _until_closed(core: Core, service: str, cid: str) -> None:
    until = time.monotonic() + 20
    while True:
        closed = core.call(service).json()["closed"]
        if closed == [cid]:
            return
        assert time.monotonic() < until, f"the generator is not closed: {closed}"


def test_a_generator_becomes_server_sent_events(core: Core) -> None:
    result, body, end = core.stream("ticks")
    assert (result.status, result.content_type) == (200, "text/event-stream")
    assert result.headers == {"X-Kind": "ticks", "Cache-Control": "no-store"}
    assert body.decode() == (
        'data: {"n":1}\n\n'
        "data: two\ndata: lines\n\n"
        'event: tick\nid: 7\nretry: 100\ndata: {"n":3}\n\n'
        ":\n\n"
        "data: by hand\n\n"
    )
    assert end == {}


def test_with_a_content_type_for_lines_each_item_is_a_line_of_json(core: Core) -> None:
    result, body, end = core.stream("lines")
    assert result.content_type == "application/x-ndjson"
    assert [json.loads(line) for line in body.splitlines()] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert end == {}


def test_a_worker_is_no_further_ahead_than_the_window(core: Core) -> None:
    ident = core.begin("big", {"pieces": 40})
    result = core.end(ident)
    core.wait(lambda: len(core.chunks.get(ident, b"")) >= 256 * 1024, "the window")
    core.ping()
    assert len(core.chunks[ident]) == 256 * 1024
    assert ident not in core.ends
    # The call still counts as begun, and others run meanwhile.
    assert ident in list(core.slots)[1:]
    assert core.call("closed").json() == {"closed": []}
    core.grant(ident, 10_000)
    core.wait(lambda: len(core.chunks[ident]) == 256 * 1024 + 10_000, "the credit to be used")
    core.grant(ident, 1 << 30)
    core.wait(lambda: ident in core.ends, "the end")
    whole = result.body + core.chunks[ident]
    assert len(whole) == 40 * 70000
    assert whole[70000:140000] == b"B" * 70000
    core.ping(8)
    assert ident not in list(core.slots)[1:]


def test_a_client_that_goes_away_ends_the_generator(core: Core) -> None:
    ident = core.begin("forever", cid="aaaaaaaaaaaaaaaaaaaaaaaa")
    core.end(ident)
    core.cancel(ident)
    _until_closed(core, "closed", "aaaaaaaaaaaaaaaaaaaaaaaa")
    assert ident not in core.ends


def test_what_goes_wrong_before_the_first_piece_is_an_answer_like_any_other(core: Core) -> None:
    result = core.call("fails-at-once")
    assert (result.status, result.details) == (500, ["no first piece"])


def test_what_goes_wrong_later_breaks_the_answer_off(core: Core) -> None:
    result, body, end = core.stream("fails-later")
    assert (result.status, body) == (200, b"data: one\n\n")
    assert end == {"error": "its generator raised ValueError: no second piece"}
    assert "no second piece" in core.log_of("no second piece")["message"]


def test_a_generator_without_a_piece_is_an_empty_stream(core: Core) -> None:
    _, body, end = core.stream("nothing")
    assert (body, end) == (b"", {})


def test_an_open_file_is_sent_as_it_is(core: Core) -> None:
    result, body, _ = core.stream("file")
    assert result.content_type == "application/octet-stream"
    assert body.decode() == MODULE


def test_another_service_gets_the_generator_itself(core: Core) -> None:
    assert core.call("inner").json() == ["a", {"n": 0}, {"n": 1}, {"n": 2}]


def test_a_caller_that_cannot_take_a_stream_gets_the_whole(core: Core) -> None:
    result = core.call("lines", channel="invoke", data_format="dict")
    assert "stream" not in result.meta or not result.meta["stream"]
    assert result.json() == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_generator_may_call_other_systems(core: Core) -> None:
    _, body, end = core.stream("talks")
    assert (body, end) == (b"data: 0\n\ndata: 1\n\ndata: 2\n\n", {})


def test_an_asynchronous_generator_is_streamed_on_the_event_loop(core: Core) -> None:
    _, body, end = core.stream("a.ticks")
    assert (body, end) == (b'data: {"n":0}\n\ndata: {"n":1}\n\ndata: {"n":2}\n\n', {})


def test_a_client_that_goes_away_wakes_an_asynchronous_generator(core: Core) -> None:
    ident = core.begin("a.sleeps", cid="bbbbbbbbbbbbbbbbbbbbbbbb")
    core.end(ident)
    core.cancel(ident)
    _until_closed(core, "a.closed", "bbbbbbbbbbbbbbbbbbbbbbbb")


def test_a_plain_generator_of_a_coroutine_runs_on_a_thread(core: Core) -> None:
    result, body, end = core.stream("a.plain")
    assert (len(body), end) == (1_000_000, {})
