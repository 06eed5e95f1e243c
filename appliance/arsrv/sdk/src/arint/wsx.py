"""`self.wsx`: clients that are connected by WebSocket channels.

    self.wsx.channel['Ticker'].broadcast({'price': 7})
    answer = self.wsx.channel['Ticker'].invoke(client_id, {'what': 'position'}, timeout=5)

A client's id is in the `environ` of what it invokes, as `pub_client_id`, and in
the context of hooks.  The core holds the connections; which worker asks does
not matter.
"""

from __future__ import annotations

from typing import Any

from arint import jsons
from arint.errors import TimeoutException, ZatoException

__all__ = ["WSX"]


class WSX:
    """`self.wsx`."""

    def __init__(self, service: Any) -> None:
        self.channel = Channels(service)


class Channels:
    """WebSocket channels by name."""

    def __init__(self, service: Any) -> None:
        self._service = service

    def __getitem__(self, name: str) -> Channel:
        return Channel(self._service, name)

    def get(self, name: str) -> Channel:
        """The same as `[name]`."""
        return self[name]


class Channel:
    """One WebSocket channel."""

    def __init__(self, service: Any, name: str) -> None:
        self._service = service
        self.name = name

    def broadcast(self, data: Any, *_: Any, **__: Any) -> int:
        """Sends something to every client that has a session, and waits for none; how many there are.

        Raises `KeyError` for a channel that there is not.
        """
        meta, _body = self._ask({"action": "broadcast"}, data)
        return int(meta.get("clients") or 0)

    def invoke(self, client_id: str, data: Any = "", timeout: float = 5) -> Any:
        """Sends something to one client and returns what it answers.

        Raises `KeyError` for a channel or client that there is not, and `TimeoutException`.
        """
        asked = {"action": "invoke", "client": client_id, "timeout_ms": max(1, round(timeout * 1000))}
        _meta, body = self._ask(asked, data)
        return jsons.loads(body.decode("utf-8")) if body else None

    def disconnect(self, client_id: str) -> None:
        """Ends a client's connection.

        Raises `KeyError` for a channel or client that there is not.
        """
        self._ask({"action": "disconnect", "client": client_id}, None)

    def _ask(self, meta: dict[str, Any], data: Any) -> tuple[dict[str, Any], bytes]:
        from arint import runtime

        if isinstance(data, str):
            # As in 3.2 a text that is JSON is sent as what it says.
            try:
                data = jsons.loads(data)
            except jsons.JSONDecodeError:
                pass
        asked = {"op": "wsx", "cid": self._service.cid, "channel": self.name, **meta}
        meta, body = runtime.get().request(asked, jsons.dumps(data).encode("utf-8"))
        error = meta.get("error")
        if error is None:
            return meta, body
        if error.get("type") == "not-found":
            raise KeyError(error.get("message"))
        if error.get("type") == "timeout":
            raise TimeoutException(self._service.cid, error.get("message"))
        raise ZatoException(self._service.cid, error.get("message"))
