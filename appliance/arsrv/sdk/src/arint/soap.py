"""`self.out.soap[name].conn.client.service.Operation(...)`: outgoing SOAP connections, as in 3.2.

The client is zeep's, which a service brings with its `requirements.txt`.  What it
sends goes through the core, which owns the address, credentials, pools, retries
and TLS; the address in a WSDL is not used.  A client is kept per name and made
anew when the core's answer has changed.
"""

from __future__ import annotations

import io
import threading
import time
from contextlib import contextmanager
from typing import Any, Iterator
from urllib.parse import urljoin, urlsplit

from arint import runtime
from arint.errors import Inactive, TimeoutException, ZatoException
from arint.rest import resolved_name

_ASK_AGAIN_S = 1.0

_lock = threading.Lock()
# name: (what the core said, the client, when asked)
_clients: dict[str, tuple[dict[str, Any], Any, float]] = {}


class Connections:
    """`self.out.soap`, by `[name]` or `.get(name)`."""

    def __init__(self, service: Any) -> None:
        self._cid = service.cid

    def __getitem__(self, name: str) -> Connection:
        return Connection(resolved_name(name), self._cid)

    def get(self, name: str, *_: Any) -> Connection:
        """The connection of this name; raises when it is used and does not exist."""
        return self[name]


class Connection:
    """One SOAP connection."""

    def __init__(self, name: str, cid: str) -> None:
        self.name = name
        self._cid = cid

    @property
    def conn(self) -> Connection:
        """The connection itself."""
        return self

    @property
    def client(self) -> Any:
        """Zeep's client: `client.service.Operation(...)`, `client.get_type(...)`.

        Raises `KeyError` for an unknown connection and `Inactive` for one that
        is switched off.
        """
        there = runtime.get()
        there.refuse_on_loop()
        known = _clients.get(self.name)
        if known is None or time.monotonic() - known[2] > _ASK_AGAIN_S:
            about = self._about(there)
            if known is None or known[0] != about:
                # What is loaded meanwhile by another thread is loaded twice, and both are good.
                known = (about, self._make(about), 0.0)
            known = (known[0], known[1], time.monotonic())
            with _lock:
                _clients[self.name] = known
        return known[1]

    @contextmanager
    def __call__(self) -> Iterator[Any]:
        """`with self.out.soap[name].conn.client() as client`, as 3.2 has it for pools."""
        yield self.client

    def ping(self, *_: Any) -> None:
        """Asks the other side for the WSDL's head; raises where it does not answer."""
        _request(self._cid, self.name, {"op": "soap_ping"}, b"")

    def _about(self, there: runtime.Runtime) -> dict[str, Any]:
        meta, _ = there.request({"op": "soap", "name": self.name, "cid": self._cid})
        if meta.get("error") is not None:
            raise _error(self._cid, self.name, meta["error"])
        return meta

    def _make(self, about: dict[str, Any]) -> Any:
        try:
            import zeep  # noqa: F401  (whether it is there)
            from zeep.wsse import username
        except ModuleNotFoundError as exc:
            raise ZatoException(
                self._cid,
                f"outgoing connection `{self.name}` needs Python module `{exc.name}`, which is missing; name `zeep` in the "
                "service's `requirements.txt`",
            ) from None
        wsse = None
        if about.get("username") is not None:
            token: Any = username.UsernameToken
            wsse = token(about["username"], about.get("password"), use_digest=bool(about.get("use_digest")))
        transport = _transport_class()(self.name, about)
        source: Any = about["wsdl_address"]
        if about.get("wsdl"):
            source = io.BytesIO(about["wsdl"].encode("utf-8"))
        try:
            client = _client_class()(source, wsse=wsse, transport=transport)
        except (ZatoException, Inactive, TimeoutException, KeyError):
            raise
        except Exception as exc:
            reason = " ".join(str(exc).split()) or type(exc).__name__
            raise ZatoException(
                self._cid, f"outgoing connection `{self.name}`: its WSDL cannot be used: {reason}"
            ) from exc
        return client


def _client_class() -> Any:
    import zeep

    class Client(zeep.Client):  # type: ignore[misc]
        """Also called like a pool: `with ...conn.client() as client`."""

        @contextmanager
        def __call__(self) -> Iterator[Any]:
            yield self

    return Client


def _transport_class() -> Any:
    import requests
    from zeep.transports import Transport

    class Through(Transport):  # type: ignore[misc]
        """Everything goes by way of the core."""

        def __init__(self, name: str, about: dict[str, Any]) -> None:
            # No session is opened: it would have a way out of its own.
            self.cache = None
            self.name = name
            self.about = about

        def load(self, url: str) -> bytes:
            """The WSDL, or what it imports: from the connection's host only."""
            if not url:
                raise ValueError("there is nothing to be loaded")
            base = self.about["wsdl_address"]
            target = urljoin(base, url)
            here, there = urlsplit(base), urlsplit(target)
            if (here.scheme, here.netloc) != (there.scheme, there.netloc):
                raise ValueError(
                    f"`{target}` is on another host than the connection; give the WSDL with all it imports as text"
                )
            path = there.path + ("?" + there.query if there.query else "")
            meta, body = _request(_cid(), self.name, {"op": "soap_load", "path": path or "/"}, b"")
            if meta["status"] != 200:
                raise ValueError(f"`{target}` was answered with status {meta['status']}")
            return body

        def post(self, address: str, message: Any, headers: dict[str, Any]) -> Any:
            """Sends an envelope to the connection's own address."""
            body = message if isinstance(message, bytes) else str(message).encode("utf-8")
            asked = {"op": "soap_post", "headers": {str(key): str(value) for key, value in headers.items()}}
            meta, content = _request(_cid(), self.name, asked, body)
            response: Any = requests.Response()
            response.status_code = meta["status"]
            response.reason = meta.get("reason")
            response.url = address
            response._content = content
            for key, value in meta.get("headers") or ():
                response.headers[key] = value
            response.encoding = requests.utils.get_encoding_from_headers(response.headers)
            return response

        def get(self, address: str, params: Any, headers: Any) -> Any:
            """HTTP bindings of WSDL are not SOAP."""
            raise ValueError("a WSDL's HTTP GET binding is not supported; use `self.rest` for it")

        @contextmanager
        def settings(self, timeout: Any = None) -> Iterator[None]:
            """The time limits are the connection's."""
            yield

    return Through


def _cid() -> str:
    call = runtime.call_here()
    return str(getattr(call, "cid", "") or "")


def _request(cid: str, name: str, meta: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    asked = {**meta, "conn": name}
    if cid:
        asked["cid"] = cid
    answer, content = runtime.get().request(asked, body)
    if answer.get("error") is not None:
        raise _error(cid, name, answer["error"])
    return answer, content


def _error(cid: str, name: str, error: dict[str, Any]) -> Exception:
    kind = error.get("type")
    if kind == "not-found":
        return KeyError(name)
    if kind == "inactive":
        return Inactive(name, cid)
    if kind == "timeout":
        return TimeoutException(cid, error.get("message"))
    if kind == "connection":
        import requests

        return requests.exceptions.ConnectionError(error.get("message"))
    return ZatoException(cid, error.get("message"))
