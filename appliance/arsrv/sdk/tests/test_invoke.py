"""`self.invoke` within a worker and by way of the core (ranks 7 and 24)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness import Core, Result


def test_every_way_to_invoke_another_service(core: Core) -> None:
    """Payload forms, wrapper rule, options, environ, verb-only targets."""
    assert core.call("orders.forms").json() == {
        "wrapped": {"response": {"status": "order A1 on invoke"}},
        "by_class": {"response": {"status": "order A2 on invoke"}},
        "by_keywords": {"response": {"status": "order A3 on invoke"}},
        "unwrapped": {"status": "order A4 on invoke"},
        "attribute": "order A5 on invoke",
        "serialized": '{"response":{"status":"order A6 on invoke"}}',
        "text": "text:abc",
        "silent": "",
        "refused": "",
        "is_same": True,
        "environ": {"from": "forms"},
        "verbs_only": "",
        "groups": [[1, 2], [3, None]],
        "is_valid": True,
    }


def test_errors_of_invoke(deploy: Any) -> None:
    """Itself, unknown (the core says so), failing, switched off."""
    from harness import SERVICES

    sources = {name: (SERVICES / f"{name}.py").read_text() for name in ("order_rules", "orders")}
    core = deploy(hello={"inactive": ["orders.off"], "respond": not_found}, **sources)
    assert core.call("orders.errors").json() == {
        "orders.errors": ["ZatoException", "service `orders.errors` cannot invoke itself", False],
        "orders.nothing": ["KeyError", "'orders.nothing'", False],
        "orders.failing": ["ValueError", "('inner', 17)", False],
        "orders.off": ["Inactive", "`orders.off` is inactive", True],
    }


def not_found(meta: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    return {"error": {"type": "not-found", "message": "no such service"}}, b""


def test_a_service_elsewhere_is_asked_for_at_the_core(core: Core) -> None:
    """The REQUEST's form, and an answer of JSON."""
    core.requests.clear()
    core.respond = lambda meta, body: (
        {"status": 200, "content_type": "application/json", "headers": {}},
        b'{"response":{"a":1}}',
    )
    request = {"service": "far.away", "data": {"x": 1}, "options": {"timeout": 1.5, "skip_response_elem": True}}
    ident = core.begin("orders.remote", request, cid="d" * 24)
    assert core.end(ident).json() == {"got": {"a": 1}}
    assert core.requests == [
        (
            {
                "op": "invoke",
                "cid": "d" * 24,
                "service": "far.away",
                "data_format": "dict",
                "timeout_ms": 1500,
                "channel": "invoke",
                "call": ident,
            },
            b'{"x":1}',
        )
    ]


FAR = {"service": "far.away", "data": ""}


@pytest.mark.parametrize(
    ("meta", "body", "expected"),
    [
        ({"status": 200, "content_type": "text/plain", "headers": {}}, b"plain", {"got": "plain"}),
        ({"status": 200, "content_type": None, "headers": {}}, b"", {"got": ""}),
        ({"error": {"type": "not-found", "message": "x"}}, b"", {"error": ["KeyError", "'far.away'"]}),
        ({"error": {"type": "inactive", "message": "x"}}, b"", {"error": ["Inactive", "`far.away` is inactive"]}),
        ({"error": {"type": "timeout", "message": "late"}}, b"", {"error": ["TimeoutException", "late"]}),
        ({"error": {"type": "refused", "message": "no"}}, b"", {"error": ["ZatoException", "no"]}),
        (
            {"status": 403, "headers": {}, "error": {"details": "not yours", "type": "Forbidden", "message": "m"}},
            b"",
            {"error": ["Forbidden", "not yours"]},
        ),
        (
            {"status": 500, "headers": {}, "error": {"details": ["bad", 7], "type": "ValueError", "message": "m"}},
            b"",
            {"error": ["ValueError", "('bad', 7)"]},
        ),
        (
            {"status": 500, "headers": {}, "error": {"details": ["bad"], "type": "OwnError", "message": "OwnError: bad"}},
            b"",
            {"error": ["ZatoException", "OwnError: bad"]},
        ),
    ],
)
def test_answers_and_errors_from_elsewhere(core: Core, meta: Any, body: bytes, expected: Any) -> None:
    """The core's own errors have no status; those of the other service have."""
    core.respond = lambda *_: (meta, body)
    assert core.call("orders.remote", FAR).json() == expected


def test_results_for_an_invoking_core_say_what_they_are(core: Core) -> None:
    """Text and JSON are told apart by their content type."""
    text = core.call("orders.text", '"abc"', channel="invoke", data_format="dict")
    assert (text.content_type, text.text) == ("text/plain", "text:abc")
    document = core.call("orders.inner", {"order_no": "B"}, channel="invoke", data_format="dict")
    assert (document.content_type, document.json()) == (
        "application/json",
        {"response": {"status": "order B on invoke"}},
    )
    nothing = core.call("orders.silent", channel="invoke", data_format="dict")
    assert nothing.body == b""


def test_timeouts_of_invoke_raise_or_give_none(core: Core) -> None:
    """raise_timeout."""
    assert core.call("orders.with-timeout").json() == {
        "quiet": None,
        "loud": "service `orders.slow` did not answer within 0.05 s",
    }


def test_a_new_instance_is_for_the_same_request(core: Core) -> None:
    """And log_input, log_output."""
    assert core.call("orders.new-instance", cid="e" * 24).json() == {"name": "orders.inner", "cid": "e" * 24}
    core.log_of("Before input of `orders.new-instance`, cid " + "e" * 24)
    core.log_of("After output of `orders.new-instance`")


def test_the_environ_of_the_core_reaches_the_service(core: Core) -> None:
    """Rank 24."""
    result: Result = core.call("orders.plain", environ={"a": [1]}, channel="invoke", data_format="dict")
    assert json.loads(result.body)["environ"] == {"a": [1]}


def test_the_core_is_told_of_services_that_were_run_without_it(deploy: Any) -> None:
    """A STEP each, with its time, under the call's id; at most 200 of one call."""
    core = deploy(
        steps="""
from zato.server.service import Service
class Outer(Service):
    name = 'outer'
    def handle(self):
        for number in range(int(self.request.payload['times'])):
            self.invoke('inner', number)
        try:
            self.invoke('failing')
        except ValueError:
            pass
class Inner(Service):
    name = 'inner'
    def handle(self):
        pass
class Failing(Service):
    name = 'failing'
    def handle(self):
        raise ValueError('no')
"""
    )
    assert core.call("outer", {"times": 2}).status == 200
    (first, second, failing), ident = core.steps, core.steps[0]["id"]
    assert (first["service"], second["service"], failing["service"]) == ("inner", "inner", "failing")
    assert [step["failed"] for step in core.steps] == [False, False, True]
    assert {step["id"] for step in core.steps} == {ident} and ident > 0
    assert first["at_us"] + first["took_us"] <= second["at_us"] + 1000
    core.steps.clear()
    for _ in range(2):
        assert core.call("outer", {"times": 500}).status == 200
    assert len(core.steps) == 400
