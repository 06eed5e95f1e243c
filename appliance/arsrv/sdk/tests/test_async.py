"""`async def handle` and `self.aio`."""

from __future__ import annotations

from typing import Any

import pytest
from arint import frames
from harness import SERVICES, Core


def respond(meta: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes] | None:
    if meta["op"] == "invoke":
        return {"status": 200, "content_type": "application/json", "headers": {}}, b'{"far":' + body + b"}"
    if meta["op"] == "rest_info":
        return {"data_format": "json", "address": "http://crm/{customer_id}", "url_path": "", "is_active": True}, b""
    return {"status": 200, "headers": [["content-type", "application/json"]]}, b'{"id":1}'


@pytest.fixture
def core(deploy: Any) -> Core:
    """A worker with the services of `coro.py`."""
    running: Core = deploy(hello={"respond": respond}, coro=(SERVICES / "coro.py").read_text())
    assert running.failed is None, running.failed
    return running


def test_a_coroutine_handles_a_request(core: Core) -> None:
    """With input, output, hooks that are coroutines, and the cid on its log lines."""
    assert core.ready is not None and core.ready["services"][0]["is_async"] is True
    result = core.call("coro.hello", {"name": "Ann"}, cid="a" * 24)
    assert result.json() == {"greeting": "hello Ann, hook ran"}
    line = core.log_of("in a coroutine")
    assert (line["level"], line["logger"], line["cid"]) == ("warn", "a.library", "a" * 24)


def test_coroutines_await_what_others_block_on(core: Core) -> None:
    """invoke here and elsewhere, REST, blocking functions; and blocking calls say what to use."""
    assert core.call("coro.calls-all").json() == {
        "hello": {"greeting": "hello Ann, hook ran"},
        "sync": {"sync": {"a": 1}},
        "remote": {"far": {"b": 2}},
        "rest": [200, {"id": 1}],
        "run": "xy",
        "blocking": "this call would block the event loop: in `async def handle` use `await self.aio.invoke(...)`, "
        "`await self.aio.rest['X'].get(...)` or `await self.aio.run(function, *args)`",
    }


def test_a_plain_service_invokes_a_coroutine(core: Core) -> None:
    """It waits for it, and others go on."""
    assert core.call("coro.calls-async").json() == {"greeting": "hello Bob, hook ran"}


def test_coroutines_run_side_by_side_on_one_thread(core: Core) -> None:
    """The first can only end when the second has run."""
    first = core.begin("coro.wait-for-other")
    second = core.begin("coro.wake-other")
    assert core.end(second).status == 200
    assert core.end(first).text == "was woken"


def test_failures_of_coroutines_are_answers(core: Core) -> None:
    """With headers; SystemExit ends only the request."""
    failed = core.call("coro.fails")
    assert (failed.status, failed.details, failed.headers) == (500, ["in a coroutine"], {"X-Was-Here": "yes"})
    ended = core.call("coro.exits")
    assert (ended.status, ended.details) == (503, "service 'coro.exits' called sys.exit(5)")
    assert core.call("coro.hello", {"name": "x"}).status == 200


def test_a_timeout_of_an_awaited_invoke(core: Core) -> None:
    """In seconds, as with self.invoke."""
    assert core.call("coro.times-out").text == "service `coro.sleeper` did not answer within 0.02 s"


def test_coroutines_stand_in_the_slots_and_can_be_cancelled_and_drained(core: Core) -> None:
    """The same rules as for threads."""
    waiting = core.begin("coro.wait-for-other")
    core.call("coro.sync")
    core.ping()
    assert waiting in list(core.slots[1:])
    core.send(frames.empty(frames.CANCEL, waiting))
    core.send(frames.empty(frames.DRAIN, 0))
    core.begin("coro.wake-other")
    assert core.wait_exit() == 0
    assert waiting not in core.results
    assert not any(core.slots[1:])
