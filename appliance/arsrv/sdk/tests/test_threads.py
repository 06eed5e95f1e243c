"""Who leads, who waits: calls side by side, blocked leaders, PING, CANCEL, DRAIN, the slots file."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from arint import frames
from harness import SERVICES, UNWATCHED, Core


@pytest.fixture
def faults(deploy: Any) -> Core:
    """A worker with the services that block, spin and wait for each other."""
    core: Core = deploy(hello={"threads": 4}, faults=(SERVICES / "faults.py").read_text())
    assert core.failed is None, core.failed
    return core


def test_a_blocking_service_does_not_hold_up_the_next(faults: Core) -> None:
    """The waiting call can only end once the later one has run."""
    waiting = faults.begin("faults.wait")
    opening = faults.begin("faults.open", "1")
    faults.end(waiting)
    assert faults.end(opening).text == "opened"
    assert faults.results[waiting].text == "waited"


def test_many_blocking_services_run_side_by_side(faults: Core) -> None:
    """Three wait at once and one lets them go: four threads' worth, and a fifth reads."""
    waiting = [faults.begin("faults.wait") for _ in range(3)]
    faults.end(faults.begin("faults.open", "3"))
    assert [faults.end(ident).text for ident in waiting] == ["waited"] * 3


def test_calls_above_the_limit_wait_their_turn_and_are_not_lost(deploy: Any) -> None:
    """Both threads wait for the core; later calls run once a reply frees one, and a cancelled one never does."""
    sources = {name: (SERVICES / f"{name}.py").read_text() for name in ("order_rules", "orders")}
    core = deploy(hello={"threads": 2}, **sources)
    waiting = [core.begin("orders.remote", {"service": "far.away", "data": number}) for number in (1, 2)]
    core.wait(lambda: len(core.held) == 2, "both requests")
    late = [core.begin("orders.text", f'"{number}"', data_format="dict") for number in range(3)]
    core.send(frames.empty(frames.CANCEL, late[1]))
    core.ping()
    assert core.results == {}
    assert {slot for slot in core.slots[1:] if slot} == set(waiting)
    meta = {"status": 200, "content_type": "text/plain", "headers": {}}
    core.reply(core.held[0][0], meta, b"x")
    assert core.end(late[0]).text == "text:0"
    assert core.end(late[2]).text == "text:2"
    assert core.order[0] == waiting[core.held[0][1]["call"] - waiting[0]]
    core.reply(core.held[1][0], meta, b"y")
    for ident in waiting:
        core.end(ident)
    core.ping(8)
    assert late[1] not in core.results


def wait_for_slots(core: Core, expected: set[int]) -> None:
    """Until exactly these calls have begun; PING gives the worker its turns."""
    for turn in range(100, 10_000):
        if {slot for slot in core.slots[1:] if slot} == expected:
            return
        core.ping(turn)
    raise AssertionError(f"the slots hold {[slot for slot in core.slots[1:] if slot]} and not {expected}")


def test_an_endless_loop_does_not_keep_ping_or_others_waiting(faults: Core) -> None:
    """The watcher takes the lead from it."""
    spinning = faults.begin("faults.spin")
    faults.ping()
    assert faults.call("faults.print").status == 200
    assert spinning not in faults.results
    assert faults.slots[0] != 0
    assert spinning in list(faults.slots[1:])


def test_a_service_that_waits_for_the_core_lets_others_run(deploy: Any) -> None:
    """The reply is held back until a later call has been answered."""
    core = deploy(order_rules=(SERVICES / "order_rules.py").read_text(), orders=(SERVICES / "orders.py").read_text())
    first = core.begin("orders.remote", {"service": "far.away", "data": 1})
    core.wait(lambda: len(core.held) == 1, "the first request")
    second = core.begin("orders.remote", {"service": "far.away", "data": 2})
    core.wait(lambda: len(core.held) == 2, "the second request")
    third = core.call("orders.silent")
    assert third.status == 200
    # The later one is answered first.
    for held, answer in ((core.held[1], b'"b"'), (core.held[0], b'"a"')):
        core.reply(held[0], {"status": 200, "content_type": "application/json", "headers": {}}, answer)
    assert core.end(first).json() == {"got": "a"}
    assert core.end(second).json() == {"got": "b"}
    assert core.order[1:] in ([second, first], [first, second])


def test_ping_is_answered_while_the_only_service_waits_for_the_core(deploy: Any) -> None:
    """The leader itself reads on while it waits."""
    sources = {name: (SERVICES / f"{name}.py").read_text() for name in ("order_rules", "orders")}
    core = deploy(unwatched=UNWATCHED, **sources)
    waiting = core.begin("orders.remote", {"service": "far.away", "data": 1})
    core.wait(lambda: bool(core.held), "the request")
    core.ping(3)
    threads = thread_count(core)
    core.reply(core.held[0][0], {"status": 200, "content_type": "text/plain", "headers": {}}, b"x")
    assert core.end(waiting).json() == {"got": "x"}
    assert threads == 2, "a second thread was started though nobody needed it"


def test_a_service_that_sleeps_by_the_sdk_hands_the_lead_over_itself(deploy: Any) -> None:
    """Without the watcher's help."""
    sources = {name: (SERVICES / f"{name}.py").read_text() for name in ("order_rules", "orders")}
    core = deploy(unwatched=UNWATCHED, **sources)
    sleeping = core.begin("orders.slow")
    core.ping()
    assert core.call("orders.silent").status == 200
    assert sleeping not in core.results


def thread_count(core: Core) -> int:
    return len(list(Path(f"/proc/{core.process.pid}/task").iterdir()))


def test_a_cancelled_call_gives_no_result(faults: Core) -> None:
    """And nothing is raised in it: it runs to its end."""
    waiting = faults.begin("faults.wait")
    faults.ping(1)
    faults.send(frames.empty(frames.CANCEL, waiting))
    faults.ping(2)
    faults.call("faults.open", "1")
    wait_for_slots(faults, set())
    faults.ping(3)
    assert waiting not in faults.results


def test_the_slots_file_shows_what_has_begun(faults: Core) -> None:
    """Set before user code, cleared after the RESULT."""
    waiting = faults.begin("faults.wait")
    wait_for_slots(faults, {waiting})
    assert faults.slots[0] == waiting
    other = faults.begin("faults.print")
    faults.end(other)
    assert faults.slots[0] == other
    faults.call("faults.open", "1")
    faults.end(waiting)
    wait_for_slots(faults, set())


def test_a_drained_worker_finishes_what_is_in_flight_and_exits(faults: Core) -> None:
    """Exit code 0, after the RESULT."""
    waiting = faults.begin("faults.wait")
    wait_for_slots(faults, {waiting})
    opening = faults.begin("faults.open", "1")
    faults.send(frames.empty(frames.DRAIN, 0))
    faults.end(waiting)
    faults.end(opening)
    assert faults.wait_exit() == 0


def test_an_idle_worker_exits_at_once_when_drained(faults: Core) -> None:
    """Nothing in flight."""
    faults.call("faults.print")
    faults.send(frames.empty(frames.DRAIN, 0))
    assert faults.wait_exit() == 0


def test_a_worker_ends_with_its_core(faults: Core) -> None:
    """Also one with a service that computes for ever."""
    faults.begin("faults.spin")
    faults.ping()
    faults.sock.close()
    assert faults.wait_exit() == 0


def test_an_idle_worker_takes_no_processor_time(faults: Core) -> None:
    """No thread wakes up: the count of context switches stands still once everybody sleeps."""
    faults.call("faults.print")
    until_still = 200
    before = switches(faults)
    for _ in range(until_still):
        threading.Event().wait(0.05)
        now = switches(faults)
        if now == before:
            break
        before = now
    else:
        raise AssertionError("the worker never came to rest")
    threading.Event().wait(0.3)
    assert switches(faults) == before


def switches(core: Core) -> int:
    total = 0
    for task in Path(f"/proc/{core.process.pid}/task").iterdir():
        total += sum(int(number) for number in re.findall(r"ctxt_switches:\s+(\d+)", (task / "status").read_text()))
    return total


def test_threads_that_are_idle_for_long_end(deploy: Any) -> None:
    """And their places are free again."""
    hurry = "from arint import runtime\nruntime._IDLE_THREAD_S = 0.05\n"
    core = deploy(hurry=hurry, faults=(SERVICES / "faults.py").read_text())
    waiting = [core.begin("faults.wait") for _ in range(6)]
    wait_for_slots(core, set(waiting))
    assert thread_count(core) >= 7
    core.call("faults.open", "6")
    for ident in waiting:
        core.end(ident)
    for _ in range(400):
        if thread_count(core) <= 3:
            break
        threading.Event().wait(0.025)
    assert thread_count(core) <= 3, "the main thread, the leader, and at most one on its way out"
    assert core.call("faults.print").status == 200


def test_bodies_larger_than_any_buffer_pass_both_ways(core: Core) -> None:
    """Short writes, and frames of their own size."""
    text = "x" * 3_000_000
    assert core.call("orders.text", f'"{text}"', data_format="dict").body == b"text:" + text.encode()


def test_many_calls_in_one_piece_are_all_answered(core: Core) -> None:
    """Frames that arrive together."""
    first = core.next_id
    for number in range(500):
        core.begin("orders.text", f'"{number}"', data_format="dict")
    for number in range(500):
        assert core.end(first + number).text == f"text:{number}"
