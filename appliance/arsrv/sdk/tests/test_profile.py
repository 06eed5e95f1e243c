"""Profiles: a worker tells what its services are doing, and nothing of their data."""

from __future__ import annotations

from typing import Any

import pytest
from arint import frames
from harness import Core

SERVICES = '''
import asyncio
import threading

from zato.server.service import Service

over = threading.Event()


def burn():
    secret = 'xyzzy-not-to-be-told'
    while not over.is_set():
        len(secret)


class Busy(Service):
    name = 'work.busy'

    def handle(self):
        burn()


class Idle(Service):
    name = 'work.idle'

    def handle(self):
        over.wait()


class Parent(Service):
    name = 'work.spawn'

    def handle(self):
        self.spawn(over.wait)


class Coroutine(Service):
    name = 'work.coroutine'

    async def handle(self):
        burn()


class Awaits(Service):
    name = 'work.awaits'

    async def handle(self):
        await self.pause()

    async def pause(self):
        while not over.is_set():
            await asyncio.sleep(0.05)


class Runs(Service):
    name = 'work.runs'

    async def handle(self):
        await self.aio.run(hold)


def hold():
    over.wait()


class Over(Service):
    name = 'work.over'

    def handle(self):
        over.set()
'''


@pytest.fixture
def core(deploy: Any) -> Core:
    """A worker whose services go on until they are told."""
    core: Core = deploy(work=SERVICES)
    assert core.failed is None, core.failed
    return core


def take(core: Core, seconds: float = 1.0, rate_hz: int = 200) -> int:
    """Asks for a profile."""
    return core.begin("profile", {"seconds": seconds, "rate_hz": rate_hz}, channel="profile", data_format="dict")


def seen(profile: dict[str, Any], service: str) -> dict[tuple[str, bool], int]:
    """How often the innermost function of a service's own was seen, at work and waiting."""
    found: dict[tuple[str, bool], int] = {}
    for stack in profile["stacks"]:
        if stack["service"] == service:
            own = [profile["frames"][at]["name"] for at in stack["frames"] if profile["frames"][at]["file"] == "work.py"]
            key = (own[-1] if own else "", stack["working"])
            found[key] = found.get(key, 0) + stack["count"]
    return found


def test_it_says_which_function_works_and_which_waits(core: Core) -> None:
    for service in ("work.busy", "work.idle"):
        core.begin(service)
    core.end(core.begin("work.spawn"))
    profile = core.end(take(core)).json()
    assert profile["samples"] > 5 and profile["seconds"] >= 1.0
    busy = seen(profile, "work.busy")
    assert set(name for name, _ in busy) == {"burn"}, busy
    assert busy.get(("burn", True), 0) > 0
    idle = seen(profile, "work.idle")
    # Not even the first look takes it for work.
    assert set(idle) == {("Idle.handle", False)}, idle
    assert sum(seen(profile, "work.spawn").values()) > 0
    stack = next(stack for stack in profile["stacks"] if stack["service"] == "work.busy")
    outermost = profile["frames"][stack["frames"][0]]
    assert outermost["name"] == "Busy.handle" and outermost["file"] == "work.py"
    assert SERVICES.splitlines()[outermost["line"] - 1].strip() == "def handle(self):"
    innermost = profile["frames"][stack["frames"][-1]]
    assert stack["line"] >= innermost["line"]
    assert "xyzzy" not in str(profile)
    core.end(core.begin("work.over"))


def test_a_coroutine_is_told_from_the_loop_that_runs_it(core: Core) -> None:
    core.begin("work.coroutine")
    profile = core.end(take(core)).json()
    found = seen(profile, "work.coroutine")
    # On a busy machine it may have no processor for a moment.
    assert {name for name, _ in found} == {"burn"} and found.get(("burn", True), 0) > 0, profile["stacks"]
    core.end(core.begin("work.over"))


def test_coroutines_that_wait_and_what_they_run_on_threads_are_seen(core: Core) -> None:
    calls = [core.begin("work.awaits"), core.begin("work.runs")]
    profile = core.end(take(core)).json()
    assert seen(profile, "work.awaits").get(("Awaits.pause", False), 0) > 0, profile["stacks"]
    runs = seen(profile, "work.runs")
    assert runs.get(("hold", False), 0) > 0 and runs.get(("Runs.handle", False), 0) > 0, profile["stacks"]
    core.end(core.begin("work.over"))
    for call in calls:
        core.end(call)


def test_where_looking_takes_long_there_are_fewer_looks(deploy: Any) -> None:
    bound = "from arint import profile\nprofile._MOST_SHARE = 0.0001\n"
    core: Core = deploy(bound=bound, work=SERVICES)
    core.begin("work.idle")
    profile = core.end(take(core, rate_hz=1000)).json()
    assert 1 <= profile["samples"] < 100, profile
    core.end(core.begin("work.over"))


def test_one_is_taken_at_a_time_and_one_that_nobody_waits_for_ends(core: Core) -> None:
    first = take(core, seconds=120)
    refused = core.end(take(core))
    assert refused.status == 409 and refused.error == {"type": "Busy", "message": "a profile is being taken"}
    core.send(frames.empty(frames.CANCEL, first))
    # It ends a moment later: until then the next is refused as well.
    for _ in range(1000):
        again = core.end(take(core, seconds=0.01))
        if again.status == 200:
            break
        core.ping()
    assert again.status == 200, again
    assert first not in core.results


def test_a_worker_that_is_to_leave_tells_what_it_has(core: Core) -> None:
    asked = take(core, seconds=120)
    core.end(core.begin("work.over"))
    core.send(frames.empty(frames.DRAIN, 0))
    assert core.end(asked).json()["seconds"] < 120
    assert core.wait_exit() == 0
