"""Thousands of calls of every kind at once: each is answered once, with its own answer, and nothing is left behind."""

from __future__ import annotations

import random
from typing import Any

import pytest
from arint import frames
from harness import Core, Died

MODULE = """
import asyncio, time
from zato.server.service import Service

class Quick(Service):
    def handle(self):
        self.response.payload = self.request.payload

class Blocks(Service):
    def handle(self):
        time.sleep(0.003)
        self.response.payload = self.request.payload

class Computes(Service):
    def handle(self):
        until = time.perf_counter() + 0.004
        while time.perf_counter() < until:
            pass
        self.response.payload = self.request.payload

class Asks(Service):
    def handle(self):
        first = self.invoke('far.away', self.request.payload)
        self.response.payload = self.invoke('far.away', first)

class AsksAndComputes(Service):
    def handle(self):
        answer = self.invoke('far.away', self.request.payload)
        until = time.perf_counter() + 0.003
        while time.perf_counter() < until:
            pass
        self.response.payload = answer

class Sleeps(Service):
    def handle(self):
        self.sleep(0.001)
        self.response.payload = self.request.payload

class Coroutine(Service):
    async def handle(self):
        await asyncio.sleep(0.001)
        self.response.payload = await self.aio.invoke('far.away', self.request.payload)

class Fails(Service):
    def handle(self):
        raise ValueError(self.request.payload)
"""

KINDS = ("quick", "blocks", "computes", "asks", "asks-and-computes", "sleeps", "coroutine", "fails")


@pytest.mark.parametrize(("seed", "threads"), [(1, 1), (2, 2), (3, 8), (4, 64)])
def test_a_storm_of_calls(deploy: Any, seed: int, threads: int) -> None:
    """Replies come late and out of order; some calls are cancelled; PING always comes back."""
    chance = random.Random(seed)
    core: Core = deploy(hello={"threads": threads}, storm=MODULE)
    assert core.failed is None, core.failed
    sent: dict[int, tuple[str, int]] = {}
    cancelled: set[int] = set()
    to_send = 600
    pings = 0
    while to_send or len(core.results.keys() - cancelled) + len(cancelled) < len(sent):
        for _ in range(min(to_send, chance.randrange(1, 40))):
            kind = chance.choice(KINDS)
            number = chance.randrange(1_000_000)
            sent[core.begin(f"storm.{kind}", [number])] = (kind, number)
            to_send -= 1
        if to_send and chance.random() < 0.2:
            victim = chance.choice(list(sent))
            core.send(frames.empty(frames.CANCEL, victim))
            cancelled.add(victim)
        pings += 1
        core.ping(pings)
        chance.shuffle(core.held)
        while core.held and chance.random() < 0.9:
            ident, _, body = core.held.pop()
            core.reply(ident, {"status": 200, "content_type": "application/json", "headers": {}}, body)
    while core.held:
        ident, _, body = core.held.pop()
        core.reply(ident, {"status": 200, "content_type": "application/json", "headers": {}}, body)
        core.ping(10_000 + len(core.held) + ident)
    for ident, (kind, number) in sent.items():
        if ident in cancelled and ident not in core.results:
            continue
        result = core.results[ident]
        if kind == "fails":
            assert result.details == [[number]], (seed, kind)
        else:
            assert result.json() == [number], (seed, kind)
    assert len(core.order) == len(set(core.order)), "a call was answered twice"
    core.send(frames.empty(frames.DRAIN, 0))
    while core.process.poll() is None:
        try:
            core.pump()
        except Died:
            break
        while core.held:
            ident, _, body = core.held.pop()
            core.reply(ident, {"status": 200, "content_type": "application/json", "headers": {}}, body)
    assert core.wait_exit() == 0
    assert not any(core.slots[1:])
