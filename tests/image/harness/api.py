"""The admin API and the channels of a box, as an admin's machine sees them.

The box's certificate is its own: the key of the first one seen is pinned, and any other key afterwards is a fault.
A box makes its certificate anew when its name or its addresses change, and keeps the key.
"""

import base64
import functools
import hashlib
import http.client
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.waiting import patience

CODE = re.compile(r"[Cc]ode:?\s+([2-9A-HJKMNP-TV-Z]{4}-[2-9A-HJKMNP-TV-Z]{4})\b")
USER = "admin"
PASSWORD = "correct horse battery"


class ApiError(RuntimeError):
    """The box answered, and said no."""

    def __init__(self, call: str, status: int, text: str) -> None:
        super().__init__(f"{call} gave {status}: {text}")
        self.status = status
        self.text = text
        try:
            self.message = str(json.loads(text)["message"])
        except (ValueError, KeyError, TypeError):
            self.message = text


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@functools.cache
def key_of(certificate: bytes) -> str:
    """SHA-256 of a certificate's public key (SubjectPublicKeyInfo), hexadecimal."""
    shown = subprocess.run(["openssl", "x509", "-inform", "DER", "-pubkey", "-noout"], input=certificate,
                           capture_output=True, check=True).stdout.decode()
    text = "".join(line for line in shown.splitlines() if not line.startswith("-----"))
    return hashlib.sha256(base64.b64decode(text)).hexdigest()


class Api:
    """Calls one box."""

    def __init__(self, host: str, port: int, channel_port: int) -> None:
        self.host, self.port, self.channel_port = host, port, channel_port
        self.token: str | None = None
        #: SHA-256 of the public key (`arctl` takes it as well) and of the certificate seen last, hexadecimal.
        self.pinned: str | None = None
        self.certificate: str | None = None

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        context = ssl.create_default_context()
        # Nobody signs a box's certificate; it is compared with the one seen first instead.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=context)
        connection.connect()
        assert isinstance(connection.sock, ssl.SSLSocket)
        der = connection.sock.getpeercert(binary_form=True) or b""
        self.certificate = hashlib.sha256(der).hexdigest()
        seen = key_of(der)
        if self.pinned is None:
            self.pinned = seen
        if seen != self.pinned:
            raise AssertionError(f"the box presented the key {seen}; {self.pinned} was pinned before")
        return connection

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | Iterator[bytes] | None = None,
        length: int | None = None,
        timeout: float = 60,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One call; every status is an answer."""
        connection = self._connect(timeout * patience())
        try:
            send = dict(headers or {})
            if self.token:
                send.setdefault("Authorization", f"Bearer {self.token}")
            data: Any = raw
            if body is not None:
                data = json.dumps(body).encode()
                send["Content-Type"] = "application/json"
            elif raw is not None:
                send["Content-Type"] = "application/octet-stream"
                if length is not None:
                    send["Content-Length"] = str(length)
            connection.request(method, path, data, send)
            answer = connection.getresponse()
            named = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        except http.client.HTTPException as err:
            raise ConnectionError(f"{method} {path}: {err!r}") from err
        finally:
            connection.close()

    def call(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        """One call that has to succeed; gives its JSON."""
        answer = self.request(method, path, body, **more)
        if answer.status in (502, 503, 504):
            # A unit behind the door is not there yet, which `wait_for` takes as "not yet".
            raise ConnectionError(f"{method} {path} gave {answer.status}: {answer.body.decode(errors='replace')}")
        if answer.status >= 300:
            raise ApiError(f"{method} {path}", answer.status, answer.body.decode(errors="replace"))
        return answer.json() if answer.body else None

    def get(self, path: str, **more: Any) -> Any:
        """`GET`."""
        return self.call("GET", path, **more)

    def claim(self, code: str) -> None:
        """Makes the first admin and goes on as him."""
        body = {"code": code, "user": USER, "password": PASSWORD}
        self.token = self.call("POST", "/v1/claim", body)["token"]

    def login(self) -> None:
        """Logs in anew."""
        self.token = None
        self.token = self.call("POST", "/v1/login", {"user": USER, "password": PASSWORD})["token"]

    def deploy(self, file_name: str, source: str) -> Any:
        """Deploys one file; it is live when this returns."""
        body = {"files": [{"file_name": file_name, "source": source}]}
        return self.call("POST", "/v1/deployments", body, timeout=120)

    def put(self, kind: str, name: str, spec: dict[str, object]) -> Any:
        """Makes or replaces an object; acknowledged when this returns."""
        return self.call("PUT", f"/v1/objects/{kind}/{name}", {"spec": spec})

    def journal(self, **query: object) -> list[dict[str, Any]]:
        """Lines of the journal."""
        words = "&".join(f"{key}={value}" for key, value in query.items())
        answer = self.request("GET", f"/v1/system/journal?{words}")
        if answer.status >= 300:
            raise ApiError("GET /v1/system/journal", answer.status, answer.body.decode(errors="replace"))
        text = answer.body.decode(errors="replace")
        if text.lstrip().startswith("["):
            return list(json.loads(text))
        return [json.loads(line) for line in text.splitlines() if line.strip()]

    def upload(self, bundle: Path) -> Any:
        """Sends a bundle to the box."""
        size = bundle.stat().st_size

        def pieces() -> Iterator[bytes]:
            with bundle.open("rb") as file:
                while piece := file.read(1 << 20):
                    yield piece

        return self.call(
            "PUT", "/v1/system/update/bundle", raw=pieces(), length=size, timeout=300
        )

    def channel(self, path: str, body: bytes | None = None, timeout: float = 30) -> Answer:
        """One request through a channel."""
        connection = http.client.HTTPConnection(self.host, self.channel_port, timeout=timeout * patience())
        try:
            connection.request("POST" if body is not None else "GET", path, body)
            answer = connection.getresponse()
            named = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        except http.client.HTTPException as err:
            raise ConnectionError(f"channel {path}: {err!r}") from err
        finally:
            connection.close()


def free_port() -> int:
    """A port of this machine that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
