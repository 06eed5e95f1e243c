"""Outgoing REST connections (ranks 9, 17, 26; 1.7): what goes to the core and what services get back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest
from harness import SERVICES, Core

INFO = {
    "data_format": "json",
    "content_type": "",
    "address": "https://crm.example",
    "url_path": "/customer/{customer_id}",
    "is_active": True,
    "method": "GET",
}


class Crm:
    """Answers as the core would for a few connections."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, Any], bytes]] = []
        self.infos = 0

    def __call__(self, meta: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        name = meta["conn"]
        if meta["op"] == "rest_info":
            self.infos += 1
            if name == "nothing":
                return {"error": {"type": "not-found", "message": "no connection `nothing`"}}, b""
            if name in ("plain", "form"):
                data_format = "form" if name == "form" else ""
                return {**INFO, "data_format": data_format, "url_path": "/files", "method": "POST"}, b""
            if name in ("slow", "down"):
                return {**INFO, "url_path": "/"}, b""
            return {**INFO, "is_active": name != "off", "url_path": "/" if name == "off" else INFO["url_path"]}, b""
        self.seen.append((meta, body))
        if name == "slow":
            return {"error": {"type": "timeout", "message": "`slow` did not answer within 10 s"}}, b""
        if name == "down":
            return {"error": {"type": "connection", "message": "cannot connect to `down`"}}, b""
        broken = (meta.get("path_params") or {}).get("customer_id") == "broken"
        answer = {
            "status": 500 if broken else 200,
            "reason": "Broken" if broken else "OK",
            "url": "https://crm.example/customer/17?a=b",
            "headers": [
                ["content-type", "application/json"],
                ["x-answer", "42"],
                ["set-cookie", "session=abc; Path=/"],
            ],
            "elapsed_ms": 12.5,
        }
        return answer, b'{"oops":1}' if broken else '{"name":"Żaneta"}'.encode()


@pytest.fixture
def crm(deploy: Any) -> Iterator[tuple[Core, Crm]]:
    """A worker with the services of `crm.py`, and the core they talk to."""
    there = Crm()
    core = deploy(hello={"respond": there}, crm=(SERVICES / "crm.py").read_text())
    assert core.failed is None, core.failed
    yield core, there


def test_an_answer_is_a_real_response_with_data(crm: Any) -> None:
    """Everything a service reads of it."""
    core, there = crm
    out = core.call("crm.get-customer", cid="a" * 24).json()
    text = '{"name":"Żaneta"}'
    assert out == {
        "status": 200,
        "ok": True,
        "data": {"name": "Żaneta"},
        "json": {"name": "Żaneta"},
        "text": text,
        "header": "42",
        "elapsed": 0.0125,
        "cookies": {"session": "abc"},
        "class": ["Response", True],
        "url": "https://crm.example/customer/17?a=b",
        "reason": "OK",
    }
    meta, body = there.seen[0]
    headers = meta.pop("headers")
    assert headers.pop("X-Zato-Msg-TS").startswith("20")
    assert headers == {
        "X-Zato-CID": "a" * 24,
        "X-Zato-Component": "test-1",
        "Content-Type": "application/json",
        "X-Own": "yes",
    }
    assert meta == {
        "op": "rest",
        "cid": "a" * 24,
        "conn": "CRM",
        "method": "GET",
        "path_params": {"customer_id": "17"},
        "query": [["fields", "name"], ["fields", "email"], ["active", "True"]],
        "timeout_ms": None,
        "call": 1,
    }
    assert body == b""


def test_every_verb_sends_its_data(crm: Any) -> None:
    """dict and list as JSON, text and bytes as they are."""
    core, there = crm
    result = core.call("crm.verbs")
    assert result.error is None, result
    assert [(meta["method"], body) for meta, body in there.seen] == [
        ("POST", b'{"name":"Ann"}'),
        ("POST", b'{"raw": 1}'),
        ("PUT", b"[1,2]"),
        ("PATCH", b"bytes"),
        ("DELETE", b""),
        ("OPTIONS", b""),
        ("HEAD", b""),
        ("GET", b""),
        ("POST", b'{"no":"cid"}'),
    ]
    assert there.seen[6][0]["timeout_ms"] == 1500
    assert there.infos <= 2, "what is known of a connection is asked for once a second"


def test_errors_are_the_exceptions_that_services_expect(crm: Any) -> None:
    """ValueError carries only the cid; unknown names are KeyError, or None by `get`."""
    core, _ = crm
    assert core.call("crm.errors", cid="b" * 24).json() == {
        "no params": ["ValueError", f"CID:`{'b' * 24}` Could not build URL path"],
        "missing part": ["ValueError", f"CID:`{'b' * 24}` Could not build URL path"],
        "unknown": ["KeyError", "'nothing'"],
        "inactive": ["Inactive", "`off` is inactive"],
        "timeout": ["TimeoutException", "`slow` did not answer within 10 s"],
        "connection": ["ConnectionError", "cannot connect to `down`"],
        "environment": [
            "KeyError",
            "'environment variable `NO_SUCH_VARIABLE`, which names a connection, is not set'",
        ],
        "get": None,
    }


def test_ping_is_the_cores_work(crm: Any) -> None:
    """op rest_ping."""
    core, there = crm
    assert core.call("crm.ping").text == "https://crm.example/customer/17?a=b: 200 OK in 12.5 ms"
    assert there.seen[0][0]["op"] == "rest_ping"


def test_upload_is_multipart(crm: Any) -> None:
    """Field, file name and type."""
    core, there = crm
    assert core.call("crm.upload").error is None
    meta, body = there.seen[0]
    assert meta["headers"]["Content-Type"].startswith("multipart/form-data; boundary=")
    assert b'name="table"; filename="t.csv"\r\nContent-Type: text/csv\r\n\r\na,b\n1,2\n\r\n' in body


def test_a_connection_for_forms_sends_forms(crm: Any) -> None:
    """data_format form."""
    core, there = crm
    assert core.call("crm.form-post").error is None
    meta, body = there.seen[0]
    assert (body, meta["headers"]["Content-Type"]) == (b"a=1&b=2&b=3", "application/x-www-form-urlencoded")


def test_rest_call_gives_data_or_models_and_raises_on_failure(crm: Any) -> None:
    """model, callback, and a status of 500."""
    core, _ = crm
    assert core.call("crm.rest-call").json() == {"hit": "Żaneta", "names": ["name"], "failed": '{"oops":1}'}


def test_an_adapter_is_one_call_told_by_attributes(crm: Any) -> None:
    """RESTAdapter."""
    core, there = crm
    assert core.call("crm.adapter", {"customer_id": "9"}).json() == {"mapped": "Żaneta"}
    assert there.seen[0][0]["path_params"] == {"customer_id": "9"}


def test_requests_is_not_imported_before_it_is_needed(crm: Any) -> None:
    """It would cost every worker memory and start-up time."""
    core, _ = crm
    maps = Path(f"/proc/{core.process.pid}/maps")
    assert "_ssl" not in maps.read_text()
    core.call("crm.get-customer")
    assert "_ssl" in maps.read_text()
