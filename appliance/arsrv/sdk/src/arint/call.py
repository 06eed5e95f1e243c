"""One request to one service, as it came."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from arint import frames, jsons
from arint.errors import BadRequest

__all__ = ["BodyText", "Call"]


class BodyText(str):
    """A body that was text.

    Services of the 3.2 dialect treat `raw_request` as text or as bytes; both work.
    """

    __slots__ = ()

    def decode(self, *_: Any, **__: Any) -> str:
        """The text itself."""
        return str(self)


#: What `self.channel` says where the call came from no configured channel.
_NO_CHANNEL: dict[str, Any] = {
    "id": 0,
    "name": "",
    "type": "",
    "data_format": "",
    "is_internal": False,
    "match_target": "",
    "security": None,
}


class Call:
    """What the core, or another service in this worker, asks a service to do."""

    __slots__ = (
        "ident",
        "plan",
        "cid",
        "channel",
        "data_format",
        "method",
        "environ",
        "body",
        "raw",
        "parsed",
        "has_parsed",
        "http_raw",
        "_http",
        "cancelled",
        "slot",
    )

    def __init__(
        self,
        ident: int,
        plan: Any,
        cid: str,
        channel: str,
        data_format: str,
        method: str | None,
        environ: dict[str, Any] | None,
        http_raw: bytes,
        body: bytes | None,
    ) -> None:
        self.ident = ident
        self.plan = plan
        self.cid = cid
        self.channel = channel
        self.data_format = data_format
        self.method = method
        self.environ = environ
        self.http_raw = http_raw
        #: The bytes that came, or None when `raw` is an object of this process.
        self.body = body
        #: The body as the service sees it, and read by its data format; see `parse`.
        self.raw: Any = None
        self.parsed: Any = None
        self.has_parsed = False
        self._http: dict[str, Any] | None = None
        self.cancelled = False
        #: Its place in the slots file, where it runs as a coroutine.
        self.slot = 0

    @classmethod
    def local(cls, outer: Any, plan: Any, cid: str, channel: str, data_format: str, payload: Any) -> Call:
        """A call from a service to another in the same process; `payload` passes through untouched."""
        call = cls(outer.ident if outer is not None else 0, plan, cid, channel, data_format, None, None, b"", None)
        call.raw = payload
        return call

    def parse(self) -> None:
        """Reads the body as its data format says; raises BadRequest."""
        body = self.body
        self.has_parsed = True
        if body is None:
            raw = self.raw
            data_format = self.data_format
            if type(raw) is str and raw and data_format == "json":
                self.parsed = _json(raw)
            elif type(raw) in (str, bytes) and raw and data_format in ("xml", "csv"):
                self.parsed = self._document(raw, data_format)
            else:
                self.parsed = raw
            return
        data_format = self.data_format
        if data_format == "json" or data_format == "dict":
            if not body:
                self.raw = self.parsed = ""
                return
            try:
                text = str(body, "utf-8")
            except UnicodeDecodeError as exc:
                raise BadRequest(self.cid, f"the request body is not UTF-8 at byte {exc.start}", True) from None
            try:
                self.parsed = jsons.loads(text)
            except jsons.JSONDecodeError as exc:
                raise BadRequest(self.cid, f"the request body is not JSON: {exc}", True) from None
            except RecursionError:
                raise BadRequest(self.cid, "the request body is nested too deeply", True) from None
            self.raw = self.parsed if data_format == "dict" else BodyText(text)
            return
        raw = _text_or_bytes(body)
        self.raw = raw
        if data_format == "form":
            self.parsed = self._form(raw)
        elif body and data_format in ("xml", "csv"):
            self.parsed = self._document(body if data_format == "xml" else raw, data_format)
        else:
            self.parsed = raw

    def _form(self, raw: Any) -> dict[str, Any]:
        content_type = next((value for name, value in self.http.get("headers") or () if name == "content-type"), "")
        if content_type.startswith("multipart/form-data"):
            from arint.request import multipart_fields

            return multipart_fields(content_type, self.body or b"")
        return flat(parse_qsl(raw, keep_blank_values=True)) if isinstance(raw, str) else {}

    def _document(self, body: Any, data_format: str) -> Any:
        try:
            if data_format == "xml":
                if self.channel == "soap":
                    from arint import soaps

                    return soaps.body_of(body)
                from arint import xmls

                return xmls.parse(body)
            if isinstance(body, bytes):
                raise ValueError("it is not UTF-8")
            from arint import csvs

            return csvs.parse(body)
        except ValueError as exc:
            raise BadRequest(self.cid, f"the request body is not {data_format.upper()}: {exc}", True) from None

    @property
    def http(self) -> dict[str, Any]:
        """The HTTP side of the call; empty where it did not come over HTTP."""
        http = self._http
        if http is None:
            http = self._http = jsons.loads(str(self.http_raw, "utf-8")) if self.http_raw else {}
        return http

    @property
    def channel_item(self) -> dict[str, Any]:
        """The channel that the call came through."""
        item = self.http.get("channel")
        if item is None:
            item = {**_NO_CHANNEL, "type": self.channel, "data_format": self.data_format}
        return item

    def query(self) -> dict[str, Any]:
        """The query string; a key given more than once has a list of values."""
        query = self.http.get("query")
        return flat(parse_qsl(query, keep_blank_values=True)) if query else {}

    def channel_params(self) -> dict[str, Any]:
        """Path parameters and query string in one, as `url_params_pri` says."""
        if not self.http_raw:
            return {}
        http = self.http
        path = http.get("params") or {}
        if not http.get("query"):
            return dict(path)
        if http.get("url_params_pri", "qs-over-path") == "qs-over-path":
            return {**path, **self.query()}
        return {**self.query(), **path}


def _json(text: str) -> Any:
    try:
        return jsons.loads(text)
    except jsons.JSONDecodeError as exc:
        raise BadRequest(None, f"the request body is not JSON: {exc}", True) from None
    except RecursionError:
        raise BadRequest(None, "the request body is nested too deeply", True) from None


def _text_or_bytes(body: bytes) -> Any:
    if not body:
        return ""
    try:
        return BodyText(body, "utf-8")
    except UnicodeDecodeError:
        return body


def flat(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Pairs as a dict; a key that came more than once gets the list of its values."""
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            first = out[key]
            if isinstance(first, list):
                first.append(value)
            else:
                out[key] = [first, value]
        else:
            out[key] = value
    return out


def from_frame(plans: dict[str, Any], ident: int, payload: bytes | memoryview) -> tuple[Call | None, dict[str, Any]]:
    """A CALL frame as a Call, and its meta; None where there is no such service."""
    text, http, body = frames.split_call(payload)
    meta = jsons.loads(text)
    plan = plans.get(meta["service"])
    if plan is None:
        return None, meta
    return (
        Call(
            ident,
            plan,
            meta["cid"],
            meta.get("channel") or "",
            meta.get("data_format") or "",
            meta.get("method"),
            meta.get("environ"),
            http,
            body,
        ),
        meta,
    )
