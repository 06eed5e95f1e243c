"""`self.request`: what came in."""

from __future__ import annotations

import copy
from typing import Any
from urllib.parse import parse_qsl

from arint import jsons
from arint.call import Call, flat
from arint.lazy import lazy
from bunch import Bunch, bunchify

__all__ = ["HTTPRequest", "Request", "ServiceInput"]


class ServiceInput(Bunch):
    """Declared input, by attribute or by key."""

    __slots__ = ()

    def require_any(self, *names: str) -> None:
        """Raises ValueError unless at least one of the elements is there and not empty."""
        if not any(self.get(name) for name in names):
            raise ValueError(f"at least one of {', '.join(f'`{name}`' for name in names)} is needed")

    def deepcopy(self) -> ServiceInput:
        """An independent copy."""
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> ServiceInput:
        return type(self)({key: copy.deepcopy(value, memo) for key, value in self.items()})


class HTTPRequest:
    """`self.request.http`: the HTTP side of a request; empty when the service was not called over HTTP."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @lazy
    def method(self) -> str | None:
        """The HTTP method, or None."""
        return self._call.method

    @lazy
    def path(self) -> str:
        """The path as it was asked for, without the query string."""
        return str(self._call.http.get("path", ""))

    @lazy
    def params(self) -> Bunch:
        """The parameters of the path."""
        return Bunch(self._call.http.get("params") or {})

    @lazy
    def GET(self) -> Bunch:  # noqa: N802 - the name services use
        """The query string; a key given more than once has a list."""
        return Bunch(self._call.query())

    @lazy
    def POST(self) -> Bunch:  # noqa: N802
        """The fields of a posted form; empty for any other body."""
        return Bunch(self.get_form_data()) if self._is_form() else Bunch()

    @lazy
    def headers(self) -> Bunch:
        """The request's headers, names in lower case with dashes."""
        return Bunch(flat([(name, value) for name, value in self._call.http.get("headers") or ()]))

    @lazy
    def user_agent(self) -> str:
        """The header `User-Agent`, or an empty text."""
        return str(self.headers.get("user-agent", ""))

    @lazy
    def remote_addr(self) -> str:
        """The caller's address, without the port."""
        remote = str(self._call.http.get("remote") or "")
        return remote.rpartition(":")[0].strip("[]") or remote

    @lazy
    def _wsgi_environ(self) -> dict[str, Any]:
        return wsgi_environ(self._call)

    def get_form_data(self) -> dict[str, Any]:
        """The body read as form fields, `application/x-www-form-urlencoded` or `multipart/form-data`.

        A file of a multipart form is a Bunch of `file_name`, `content_type` and `data`.
        """
        body = self._call.body or b""
        content_type = str(self.headers.get("content-type", ""))
        if content_type.startswith("multipart/form-data"):
            return multipart_fields(content_type, body)
        return flat(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))

    def _is_form(self) -> bool:
        content_type = str(self.headers.get("content-type", ""))
        return self._call.data_format in ("form", "post") or content_type.startswith(
            ("application/x-www-form-urlencoded", "multipart/form-data")
        )


class Request:
    """`self.request`."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @lazy
    def raw_request(self) -> Any:
        """The body as it came over HTTP; the very object where another service invoked this one."""
        call = self._call
        if not call.has_parsed:
            call.parse()
        return call.raw

    @lazy
    def text(self) -> Any:
        """The same as `raw_request`."""
        return self.raw_request

    @lazy
    def raw(self) -> Any:
        """The same as `raw_request`."""
        return self.raw_request

    @lazy
    def payload(self) -> Any:
        """The body read by its data format: dict or list for JSON, dict for forms, the root element for XML, rows for CSV,
        else as it came."""
        call = self._call
        if not call.has_parsed:
            call.parse()
        return call.parsed

    @lazy
    def input(self) -> Any:
        """Declared input; without a declaration the channel's parameters and a JSON body's keys."""
        call = self._call
        params = call.channel_params()
        payload = self.payload
        if isinstance(payload, dict) and call.http.get("merge_url_params_req", True):
            if call.http.get("params_pri", "channel-params-over-msg") == "channel-params-over-msg":
                return ServiceInput({**payload, **params})
            return ServiceInput({**params, **payload})
        return ServiceInput(params)

    @lazy
    def http(self) -> HTTPRequest:
        """The HTTP side of the request."""
        return HTTPRequest(self._call)

    @lazy
    def cid(self) -> str:
        """The request's correlation id."""
        return self._call.cid

    @lazy
    def data_format(self) -> str:
        """`json`, `form`, `xml`, `csv`, `hl7`, `dict` or an empty text."""
        return self._call.data_format

    @lazy
    def transport(self) -> str:
        """`plain_http` for REST channels, else an empty text."""
        return "plain_http" if self._call.http_raw else ""

    @lazy
    def channel_params(self) -> dict[str, Any]:
        """Path parameters and query string in one dict."""
        return self._call.channel_params()

    @lazy
    def merge_channel_params(self) -> bool:
        """Whether channel parameters are part of `input` beside the body."""
        return bool(self._call.http.get("merge_url_params_req", True))

    def bunchified(self) -> Any:
        """A Bunch, deep, of the JSON body; lists and other values as they are."""
        payload = self.payload
        if isinstance(payload, str) and payload:
            payload = jsons.loads(payload)
        to_dict = getattr(payload, "to_dict", None)
        if to_dict is not None:
            payload = to_dict()
        return bunchify(payload)

    def to_bunch(self) -> Any:
        """The same as `bunchified()`."""
        return self.bunchified()

    def deepcopy(self) -> Request:
        """An independent copy of the request and all it holds."""
        other = type(self)(self._call)
        for name, value in self.__dict__.items():
            if name != "_call":
                other.__dict__[name] = copy.deepcopy(value)
        return other

    def __getattr__(self, name: str) -> Any:
        if name in ("amqp", "ibm_mq", "wmq", "hl7"):
            from arint.absent import not_in_this_release

            raise not_in_this_release(f"self.request.{name}")
        raise AttributeError(f"`self.request` has no `{name}`")


def wsgi_environ(call: Call) -> dict[str, Any]:
    """The request in the form that WSGI has, for services that look into it."""
    import io

    http = call.http
    host, _, port = str(http.get("host") or "").rpartition(":")
    remote, _, remote_port = str(http.get("remote") or "").rpartition(":")
    body = call.body or b""
    if not call.has_parsed:
        call.parse()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": call.method or "",
        "SCRIPT_NAME": "",
        "PATH_INFO": http.get("path", ""),
        "QUERY_STRING": http.get("query", ""),
        "RAW_URI": http.get("path", "") + (f"?{http['query']}" if http.get("query") else ""),
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": remote.strip("[]"),
        "REMOTE_PORT": remote_port,
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": http.get("scheme", "http"),
        "wsgi.input": io.BytesIO(body),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "zato.cid": call.cid,
        "zato.http.raw_request": call.raw,
        "zato.http.path_params": dict(http.get("params") or {}),
        "zato.http.GET": call.query(),
        "zato.http.remote_addr": remote.strip("[]"),
        "zato.channel_item": call.channel_item,
        "zato.request_ctx.cid": call.cid,
    }
    for name, value in http.get("headers") or ():
        key = name.upper().replace("-", "_")
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            environ[key] = value
            continue
        key = f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


def multipart_fields(content_type: str, body: bytes) -> dict[str, Any]:
    from email.parser import BytesParser
    from email.policy import HTTP

    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode("latin-1", "replace")
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    pairs: list[tuple[str, Any]] = []
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if name is None:
            continue
        data = part.get_payload(decode=True)
        if not isinstance(data, bytes):
            data = b""
        file_name = part.get_filename()
        if file_name is None:
            pairs.append((str(name), data.decode("utf-8", "replace")))
        else:
            pairs.append(
                (str(name), Bunch(file_name=file_name, content_type=part.get_content_type(), data=data))
            )
    return flat(pairs)
