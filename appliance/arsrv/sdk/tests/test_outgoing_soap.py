"""`self.out.soap` against a real SOAP server (spyne), by way of a core that only passes on."""

from __future__ import annotations

import http.client
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
from harness import Core

SOURCE = """
from arint import Service

class Say(Service):
    name = 'soap.say'
    def handle(self):
        client = self.out.soap['greeter'].conn.client
        self.response.payload = {'said': list(client.service.say('Ewa', 2))}

class SayInPool(Service):
    name = 'soap.say-in-pool'
    def handle(self):
        with self.outgoing.soap.get('greeter').conn.client() as client:
            self.response.payload = {'said': list(client.service.say(name='Ä & <', times=1))}

class Told(Service):
    name = 'soap.told'
    def handle(self):
        try:
            service = self.out.soap[self.request.input.get('conn', 'greeter')].conn.client.service
            self.response.payload = str(getattr(service, self.request.input.get('op', 'say'))())
        except Exception as e:
            self.response.payload = type(e).__name__ + ': ' + str(e)
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The server's."""
    command = [sys.executable, str(Path(__file__).parent / "soap_peer.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as peer:
        assert peer.stdin is not None and peer.stdout is not None
        yield int(peer.stdout.readline())
        peer.stdin.close()


class Side:
    """What the core does for SOAP: it knows the address, and passes on."""

    def __init__(self, port: int, **more: Any) -> None:
        self.port = port
        address = f"http://127.0.0.1:{port}/greeter"
        self.about = {"wsdl": None, "wsdl_address": f"{address}?wsdl", **more}
        self.ops: list[str] = []
        self.error: dict[str, str] | None = None
        self.answer: tuple[int, bytes] | None = None

    def __call__(self, meta: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        op = meta["op"]
        self.ops.append(op)
        if meta.get("name", meta.get("conn")) != "greeter":
            return {"error": {"type": "not-found", "message": "no such connection"}}, b""
        if op == "soap":
            return self.about, b""
        if self.error is not None:
            return {"error": self.error}, b""
        if self.answer is not None and op == "soap_post":
            return {"status": self.answer[0], "headers": [["content-type", "text/xml"]]}, self.answer[1]
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        if op == "soap_load":
            connection.request("GET", meta["path"])
        else:
            assert op == "soap_post" and meta["cid"]
            connection.request("POST", "/greeter", body, meta["headers"])
        answer = connection.getresponse()
        content = answer.read()
        return {"status": answer.status, "reason": answer.reason, "headers": answer.getheaders()}, content


def start(deploy: Any, side: Side) -> Core:
    core: Core = deploy(hello={"respond": side}, soap_services=SOURCE)
    assert core.failed is None, core.failed
    return core


def test_operations_are_called_with_types_of_the_wsdl(port: int, deploy: Any) -> None:
    """And the WSDL is loaded once."""
    side = Side(port)
    core = start(deploy, side)
    for _ in range(3):
        assert core.call("soap.say").json() == {"said": ["hello Ewa", "hello Ewa"]}
    assert core.call("soap.say-in-pool").json() == {"said": ["hello Ä & <"]}
    assert side.ops.count("soap_load") == 1 and side.ops.count("soap_post") == 4


def test_a_fault_is_zeeps_fault(port: int, deploy: Any) -> None:
    """Services catch it as they do in 3.2."""
    core = start(deploy, Side(port))
    assert core.call("soap.told", {"op": "fail"}).text == "Fault: there is no such customer"


@pytest.mark.parametrize(("use_digest", "told"), [(False, "anna"), (True, "anna by digest")])
def test_a_username_token_is_sent(port: int, deploy: Any, use_digest: bool, told: str) -> None:
    """With the password as it is, or as its digest."""
    side = Side(port, username="anna", password="geheim&<", use_digest=use_digest)
    core = start(deploy, side)
    assert core.call("soap.told", {"op": "who"}).text == told
    assert core.call("soap.told", {"op": "who"}).text == told


def test_a_wsdl_given_as_text_needs_no_address(port: int, deploy: Any) -> None:
    """For servers that show none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/greeter?wsdl")
    text = connection.getresponse().read().decode()
    side = Side(port, wsdl=text)
    core = start(deploy, side)
    assert core.call("soap.say").json() == {"said": ["hello Ewa", "hello Ewa"]}
    assert "soap_load" not in side.ops


def test_what_goes_wrong_is_told(port: int, deploy: Any) -> None:
    """Broken servers, broken WSDLs, and what the core refuses."""
    side = Side(port)
    core = start(deploy, side)
    told = lambda **what: core.call("soap.told", what).text  # noqa: E731
    assert told(conn="nothing") == "KeyError: 'nothing'"
    assert told(op="nothing").startswith("AttributeError: ")
    side.answer = (502, b"<html>bad gateway")
    assert told().startswith("TransportError: ")
    side.answer = (200, b"")
    assert "Error: " in told()
    side.answer = (200, b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>')
    assert "Error: " in told() or "Forbidden" in told()
    side.answer = None
    side.error = {"type": "timeout", "message": "`greeter` did not answer"}
    assert told() == "TimeoutException: `greeter` did not answer"
    side.error = {"type": "connection", "message": "cannot connect to `greeter`"}
    assert told() == "ConnectionError: cannot connect to `greeter`"
    broken = Side(port, wsdl="<definitions>")
    core = start(deploy, broken)
    assert told().startswith("ZatoException: outgoing connection `greeter`: its WSDL cannot be used: ")
    elsewhere = Side(port)
    elsewhere.about["wsdl_address"] = f"http://127.0.0.1:{port}/nothing-here"
    core = start(deploy, elsewhere)
    assert "its WSDL cannot be used: " in told()


def test_a_wsdl_does_not_lead_to_other_hosts(port: int, deploy: Any) -> None:
    """What it imports comes from the connection's host, or it is given as text with everything inside."""
    text = (
        '<definitions xmlns="http://schemas.xmlsoap.org/wsdl/" targetNamespace="urn:x">'
        '<import namespace="urn:y" location="http://192.0.2.1/y.wsdl"/></definitions>'
    )
    core = start(deploy, Side(port, wsdl=text))
    assert core.call("soap.told", {}).text == (
        "ZatoException: outgoing connection `greeter`: its WSDL cannot be used: `http://192.0.2.1/y.wsdl` is on another "
        "host than the connection; give the WSDL with all it imports as text"
    )
