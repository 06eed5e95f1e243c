"""Exceptions to statuses (1.8), and services that try to end the process."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Core, Died


@pytest.mark.parametrize(
    ("kind", "status", "details"),
    [
        ("bad-request", 400, "Bad request"),
        ("bad-request-msg", 400, "the number is odd"),
        ("unauthorized", 401, "who are you"),
        ("forbidden", 403, "not yours"),
        ("not-found", 404, "no such thing"),
        ("not-found-default", 404, "Not found"),
        ("method", 405, "not like that"),
        ("conflict", 409, "taken"),
        ("too-many", 429, "slower"),
        ("internal", 500, "our fault"),
        ("unavailable", 503, "later"),
        ("zato", 500, ["something"]),
        ("inactive", 500, ["`crm` is inactive"]),
        ("timeout", 500, ["too slow"]),
        ("value", 500, ["wrong", 7, "{'a': <class 'object'>}"]),
        ("empty", 500, []),
        ("memory", 503, "service 'faults.raise' ran out of memory"),
        ("recursion", 500, ["maximum recursion depth exceeded"]),
        ("unprintable", 500, []),
    ],
)
def test_exceptions_become_statuses_and_details(core: Core, kind: str, status: int, details: Any) -> None:
    """Headers set before are still sent."""
    result = core.call("faults.raise", {"kind": kind})
    assert (result.status, result.details) == (status, details)
    assert result.headers["X-Was-Here"] == "yes"
    assert result.body == b""


def test_unauthorized_carries_its_challenge(core: Core) -> None:
    """WWW-Authenticate."""
    assert core.call("faults.raise", {"kind": "unauthorized"}).headers["WWW-Authenticate"] == 'Basic realm="crm"'


def test_the_type_and_message_are_for_the_log_and_for_callers_inside(core: Core) -> None:
    """The RESULT's error."""
    error = core.call("faults.raise", {"kind": "value"}).error
    assert error["type"] == "ValueError"
    assert error["message"] == "ValueError: ('wrong', 7, {'a': <class 'object'>})"


def test_the_traceback_goes_to_the_log_and_begins_in_the_service(core: Core) -> None:
    """One LOG frame, with the cid, without our own frames."""
    core.logs.clear()
    core.call("faults.raise", {"kind": "zato"}, cid="f" * 24)
    line = core.log_of("failed with 500: ZatoException: something")
    assert (line["level"], line["logger"], line["cid"]) == ("error", "faults.raise", "f" * 24)
    assert "faults.py" in line["message"]
    assert "life.py" not in line["message"]
    assert len(core.logs) == 1


def test_refusals_are_one_line_without_a_traceback(core: Core) -> None:
    """4xx is the caller's doing."""
    core.logs.clear()
    core.call("faults.raise", {"kind": "forbidden"})
    line = core.log_of("refused with 403")
    assert (line["level"], line["message"]) == ("warn", "refused with 403: Forbidden: not yours")


def test_arguments_are_not_shown_where_the_core_says_so(deploy: Any) -> None:
    """return_tracebacks false."""
    source = "from arint import Service\nclass X(Service):\n    def handle(self):\n        raise ValueError('secret')\n"
    core = deploy(hello={"return_tracebacks": False}, shop=source)
    assert core.call("shop.x").details == "An error has occurred"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("os._exit", "called os._exit(3)"),
        ("os.abort", "called os.abort()"),
        ("sys.exit", "called sys.exit(3)"),
        ("kill", "called os.kill(PID, SIGKILL)"),
        ("raise_signal", "called signal.raise_signal(SIGTERM)"),
        ("interrupt", "raised KeyboardInterrupt"),
    ],
)
def test_a_service_that_ends_the_process_ends_only_its_request(core: Core, kind: str, said: str) -> None:
    """503 with one sentence, and the same process answers the next call."""
    result = core.call("faults.end", {"kind": kind})
    expected = "service 'faults.end' " + said.replace("PID", str(core.process.pid))
    assert (result.status, result.details) == (503, expected)
    assert core.call("faults.print").status == 200
    assert core.process.poll() is None


def test_children_of_a_service_end_as_they_like(core: Core) -> None:
    """os._exit after os.fork is how multiprocessing works."""
    assert core.call("faults.fork-and-exit").json() == {"code": 7}


def test_a_real_crash_leaves_its_call_in_the_slots_and_a_traceback(deploy: Any) -> None:
    """What the core needs to blame the right request."""
    from harness import SERVICES

    core = deploy(faults=(SERVICES / "faults.py").read_text())
    core.call("faults.print")
    ident = core.begin("faults.crash")
    with pytest.raises(Died):
        core.end(ident)
    assert core.wait_exit() < 0
    assert core.slots[0] == ident
    assert [slot for slot in core.slots[1:] if slot] == [ident]
    core.stderr.seek(0)
    assert b"in handle" in core.stderr.read()


def test_deep_recursion_through_c_code_fits_the_threads_stack(core: Core) -> None:
    """RecursionError and not a crash."""
    assert core.call("faults.deep-in-c").text == "RecursionError"


def test_what_services_print_goes_to_the_pipes(core: Core) -> None:
    """Line by line, without waiting for a buffer to fill."""
    core.call("faults.print")
    core.stdout.seek(0)
    assert b"printed by a service\n" in core.stdout.read()
    core.stderr.seek(0)
    assert b"complained by a service\n" in core.stderr.read()


def test_reading_stdin_does_not_touch_the_protocol(core: Core) -> None:
    """Descriptor 0 is empty for services."""
    assert core.call("faults.read-stdin").text == "''"
    core.ping()
