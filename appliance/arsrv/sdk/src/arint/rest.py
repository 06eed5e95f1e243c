"""`self.out.rest['X'].conn` and `self.rest['X']`: outgoing REST connections.

The core owns the address, credentials, pools and retries; a worker sends what is
to be sent and gets back an answer, which becomes a real `requests.Response`.
A status of 400 or 500 is an answer, not an exception.
"""

from __future__ import annotations

import datetime
import os
import re
import time
from typing import TYPE_CHECKING, Any, Callable
from urllib.parse import urlencode

from arint import jsons, runtime
from arint.errors import Inactive, NotSupported, TimeoutException, ZatoException
from arint.service import Service

if TYPE_CHECKING:
    from requests import Response

__all__ = ["Connections", "Facade", "RESTAdapter", "RESTConnection"]

_INFO_S = 1.0
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")

# name: (when asked, what the core said)
_infos: dict[str, tuple[float, dict[str, Any]]] = {}
_response_class: Any = None


def resolved_name(name: str) -> str:
    """A connection's name; one that begins with `$` is looked up in the environment."""
    if name.startswith("$"):
        try:
            return os.environ[name[1:]]
        except KeyError:
            raise KeyError(f"environment variable `{name[1:]}`, which names a connection, is not set") from None
    return name


def _error(cid: str, name: str, error: dict[str, Any]) -> Exception:
    kind = error.get("type")
    message = error.get("message") or ""
    if kind == "not-found":
        return KeyError(name)
    if kind == "inactive":
        return Inactive(name, cid)
    if kind == "timeout":
        return TimeoutException(cid, message)
    if kind == "connection":
        import requests

        return requests.exceptions.ConnectionError(message)
    return ZatoException(cid, message)


def _cached_info(name: str) -> dict[str, Any] | None:
    known = _infos.get(name)
    if known is not None and time.monotonic() - known[0] < _INFO_S:
        return known[1]
    return None


def _keep_info(cid: str, name: str, meta: dict[str, Any]) -> dict[str, Any]:
    error = meta.get("error")
    if error is not None:
        _infos.pop(name, None)
        raise _error(cid, name, error)
    _infos[name] = (time.monotonic(), meta)
    return meta


def info(cid: str, name: str) -> dict[str, Any]:
    """What the core says of a connection; asked for at most once a second.  Raises KeyError."""
    known = _cached_info(name)
    if known is not None:
        return known
    meta, _ = runtime.get().request({"op": "rest_info", "conn": name, "cid": cid})
    return _keep_info(cid, name, meta)


# Requests


def prepared(
    cid: str,
    name: str,
    about: dict[str, Any],
    method: str,
    data: Any,
    params: Any,
    headers: dict[str, Any] | None,
    timeout: float | None,
) -> tuple[dict[str, Any], bytes]:
    """The REQUEST for a call of a connection.  Raises ValueError for a missing part of the path."""
    if not about.get("is_active", True):
        raise Inactive(name, cid)
    pattern = f"{about.get('address') or ''}{about.get('url_path') or ''}"
    wanted = dict.fromkeys(_PLACEHOLDER.findall(pattern))
    path_params: dict[str, str] = {}
    query: list[list[str]] = []
    if isinstance(params, (str, bytes)):
        from urllib.parse import parse_qsl

        text = params.decode("utf-8") if isinstance(params, bytes) else params
        pairs: list[Any] = list(parse_qsl(text.lstrip("?"), keep_blank_values=True))
    elif isinstance(params, dict):
        pairs = list(params.items())
    else:
        pairs = list(params or ())
    for key, value in pairs:
        if key in wanted:
            path_params[key] = _param(value)
        elif isinstance(value, (list, tuple)):
            query.extend([str(key), _param(item)] for item in value)
        elif value is not None:
            query.append([str(key), _param(value)])
    if any(key not in path_params for key in wanted):
        # The address may tell more than whoever reads this may know.
        raise ValueError(f"CID:`{cid}` Could not build URL path")
    out_headers = {
        "X-Zato-CID": cid,
        "X-Zato-Component": str((runtime.get().hello or {}).get("worker") or "arint"),
        "X-Zato-Msg-TS": datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None).isoformat(),
    }
    body, content_type = _body(data, about.get("data_format") or "")
    content_type = about.get("content_type") or content_type
    if content_type:
        out_headers["Content-Type"] = content_type
    for key, value in (headers or {}).items():
        for known in [known for known in out_headers if known.lower() == str(key).lower()]:
            del out_headers[known]
        out_headers[str(key)] = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return (
        {
            "op": "rest",
            "cid": cid,
            "conn": name,
            "method": method.upper(),
            "path_params": path_params,
            "query": query,
            "headers": out_headers,
            "timeout_ms": int(timeout * 1000) if timeout else None,
        },
        body,
    )


def _param(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _body(data: Any, data_format: str) -> tuple[bytes, str | None]:
    if data is None or (isinstance(data, str) and not data):
        return b"", "application/json" if data_format == "json" else None
    if isinstance(data, bytes):
        return data, "application/json" if data_format == "json" else None
    if isinstance(data, str):
        return data.encode("utf-8"), "application/json" if data_format == "json" else None
    read = getattr(data, "read", None)
    if read is not None:
        content = read()
        return (content if isinstance(content, bytes) else content.encode("utf-8")), None
    if data_format in ("form", "post") or (isinstance(data, dict) and data_format != "json" and not _nested(data)):
        return urlencode(data, doseq=True).encode("utf-8"), "application/x-www-form-urlencoded"
    return jsons.dumps(data).encode("utf-8"), "application/json"


def _nested(data: dict[Any, Any]) -> bool:
    return any(isinstance(value, dict) for value in data.values())


# Answers


def _make_response_class() -> Any:
    global _response_class
    import requests

    class DataResponse(requests.Response):
        """A `requests.Response` whose `data` is the body read by its format."""

        data: Any = None

    DataResponse.__name__ = DataResponse.__qualname__ = "Response"
    _response_class = DataResponse
    return DataResponse


def response_of(
    cid: str, name: str, about: dict[str, Any], method: str, meta: dict[str, Any], body: bytes
) -> Response:
    """The core's REPLY as a `requests.Response`, or as an exception."""
    error = meta.get("error")
    if error is not None:
        raise _error(cid, name, error)
    cls = _response_class or _make_response_class()
    import requests
    from requests.structures import CaseInsensitiveDict
    from requests.utils import get_encoding_from_headers

    response = cls()
    response.status_code = meta["status"]
    response.reason = meta.get("reason") or ""
    response.url = meta.get("url") or ""
    headers: CaseInsensitiveDict[str] = CaseInsensitiveDict()
    for key, value in meta.get("headers") or ():
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
        if key.lower() == "set-cookie":
            _take_cookie(response, value)
    response.headers = headers
    response._content = body
    response._content_consumed = True
    response.encoding = get_encoding_from_headers(headers)  # type: ignore[no-untyped-call]
    response.elapsed = datetime.timedelta(milliseconds=float(meta.get("elapsed_ms") or 0))
    response.request = requests.Request(method.upper(), response.url or "http://none/").prepare()
    content_type = headers.get("content-type", "")
    if response.encoding is None and (not content_type or "json" in content_type):
        response.encoding = "utf-8"
    response.data = _data(response, about.get("data_format") or "", content_type)
    return response  # type: ignore[no-any-return]


def _data(response: Any, data_format: str, content_type: str) -> Any:
    if data_format == "json" or "json" in content_type:
        try:
            return jsons.loads(response.content.decode("utf-8")) if response.content else ""
        except ValueError:
            return response.text
    return response.text


def _take_cookie(response: Any, value: str) -> None:
    from http.cookies import CookieError, SimpleCookie

    try:
        for key, morsel in SimpleCookie(value).items():
            response.cookies.set(key, morsel.value, path=morsel["path"] or "/")
    except CookieError:
        # The header is still in `headers`.
        return


class RESTConnection:
    """One outgoing REST connection; every verb takes the cid first."""

    def __init__(self, name: str, about: dict[str, Any]) -> None:
        self.name = name
        self.config = about

    def http_request(
        self,
        method: str,
        cid: str,
        data: Any = "",
        params: Any = None,
        *_: Any,
        headers: dict[str, Any] | None = None,
        timeout: float | None = None,
        **__: Any,
    ) -> Response:
        """Sends a request and returns what came back, whatever its status.

        Parts of the address in braces are taken out of `params`; the rest of
        `params` is the query string.  A dict or Model as `data` is sent as JSON,
        or as a form where the connection says so.  `timeout` is in seconds.

        Raises `ValueError` for a missing part of the address, `Inactive`,
        `TimeoutException`, and `requests.exceptions.ConnectionError`.
        """
        about = info(cid, self.name)
        meta, body = prepared(cid, self.name, about, method, data, params, headers, timeout)
        return response_of(cid, self.name, about, method, *runtime.get().request(meta, body))

    def get(self, cid: str, params: Any = None, *args: Any, **kwargs: Any) -> Response:
        """GET."""
        return self.http_request("GET", cid, "", params, *args, **kwargs)

    def delete(self, cid: str, data: Any = "", params: Any = None, *args: Any, **kwargs: Any) -> Response:
        """DELETE."""
        return self.http_request("DELETE", cid, data, params, *args, **kwargs)

    def options(self, cid: str, data: Any = "", params: Any = None, *args: Any, **kwargs: Any) -> Response:
        """OPTIONS."""
        return self.http_request("OPTIONS", cid, data, params, *args, **kwargs)

    def head(self, cid: str, params: Any = None, *args: Any, **kwargs: Any) -> Response:
        """HEAD."""
        return self.http_request("HEAD", cid, "", params, *args, **kwargs)

    def post(self, cid: str, data: Any = "", params: Any = None, *args: Any, **kwargs: Any) -> Response:
        """POST."""
        return self.http_request("POST", cid, data, params, *args, **kwargs)

    send = post

    def put(self, cid: str, data: Any = "", params: Any = None, *args: Any, **kwargs: Any) -> Response:
        """PUT."""
        return self.http_request("PUT", cid, data, params, *args, **kwargs)

    def patch(self, cid: str, data: Any = "", params: Any = None, *args: Any, **kwargs: Any) -> Response:
        """PATCH."""
        return self.http_request("PATCH", cid, data, params, *args, **kwargs)

    def upload(
        self,
        cid: str,
        item: Any,
        field_name: str = "data",
        mime_type: str = "text/plain",
        *,
        file_name: str | None = None,
        headers: dict[str, Any] | None = None,
        params: Any = None,
        timeout: float | None = None,
    ) -> Response:
        """POSTs a file as multipart form data.

        `item` is the path of a file, an open file, or bytes.
        """
        body, content_type = multipart(item, field_name, mime_type, file_name)
        return self.http_request(
            "POST", cid, body, params, headers={**(headers or {}), "Content-Type": content_type}, timeout=timeout
        )

    def ping(self, cid: str, *_: Any, **__: Any) -> str:
        """Asks the core to ping the connection (HEAD unless configured otherwise); returns a description.

        Raises like `http_request` where nothing answers.
        """
        meta, _body_of_ping = runtime.get().request({"op": "rest_ping", "conn": self.name, "cid": cid})
        error = meta.get("error")
        if error is not None:
            raise _error(cid, self.name, error)
        return f"{meta.get('url') or self.name}: {meta['status']} {meta.get('reason') or ''} in {meta.get('elapsed_ms')} ms"

    def rest_call(
        self,
        *,
        cid: str,
        data: Any = "",
        model: Any = None,
        callback: Callable[..., Any] | None = None,
        params: Any = None,
        headers: dict[str, Any] | None = None,
        method: str = "",
        sec_def_name: str | None = None,
        auth_scopes: Any = None,
        log_response: bool = True,
    ) -> Any:
        """Sends a request and returns the answer's data, made a Model where one is given.

        `callback` is called with the data, and what it returns is returned.
        Raises `Exception` with the body's text when the status is 400 or above.
        """
        if sec_def_name or auth_scopes:
            raise NotSupported(
                "the security of a call (`sec_def_name`, `auth_scopes`) belongs to its connection: configure it there, "
                "or configure a second connection with it; see the page `not-supported` of the integrator's guide"
            )
        method = method or info(cid, self.name).get("method") or ("POST" if data else "GET")
        response = self.http_request(method, cid, data, params, headers=headers)
        if log_response:
            _log(cid, self.name, response)
        if not response.ok:
            raise Exception(response.text)
        value = response.data  # type: ignore[attr-defined]
        if model is not None:
            from arint.model import build

            if isinstance(value, list):
                value = [build(model, item, f"[{index}]") for index, item in enumerate(value)]
            else:
                value = build(model, value, "")
        if callback is not None:
            return callback(value)
        return value


def _log(cid: str, name: str, response: Response) -> None:
    import logging

    logging.getLogger("arint.rest").info(
        "connection `%s` answered %s, %s bytes, cid %s", name, response.status_code, len(response.content), cid
    )


def multipart(item: Any, field_name: str, mime_type: str, file_name: str | None) -> tuple[bytes, str]:
    """A file as multipart form data: the body and its content type."""
    from urllib3.filepost import encode_multipart_formdata

    if isinstance(item, (str, os.PathLike)):
        with open(item, "rb") as source:
            content: Any = source.read()
        file_name = file_name or os.path.basename(os.fspath(item))
    elif hasattr(item, "read"):
        content = item.read()
        file_name = file_name or os.path.basename(str(getattr(item, "name", "") or field_name))
    else:
        content = item
    if isinstance(content, str):
        content = content.encode("utf-8")
    return encode_multipart_formdata({field_name: (file_name or field_name, bytes(content), mime_type)})


class Item:
    """What `self.out.rest[name]` gives: the connection is in `conn`."""

    def __init__(self, conn: RESTConnection) -> None:
        self.conn = conn
        self.name = conn.name

    @property
    def config(self) -> dict[str, Any]:
        """What the core says of the connection."""
        return self.conn.config

    def __getattr__(self, name: str) -> Any:
        return getattr(self.conn, name)


class Connections:
    """`self.out.rest` and `self.outgoing.plain_http`."""

    def __init__(self, service: Any) -> None:
        self._cid = service.cid

    def __getitem__(self, name: str) -> Item:
        name = resolved_name(name)
        return Item(RESTConnection(name, info(self._cid, name)))

    def get(self, name: str, default: Any = None) -> Any:
        """The connection, or the default where there is none."""
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None


class BoundConnection:
    """`self.rest['X']`: the same verbs without the cid."""

    def __init__(self, cid: str, conn: RESTConnection) -> None:
        self._cid = cid
        self.conn = conn
        self.name = conn.name

    def get(self, params: Any = None, **kwargs: Any) -> Response:
        """GET."""
        return self.conn.get(self._cid, params, **kwargs)

    def delete(self, data: Any = "", params: Any = None, **kwargs: Any) -> Response:
        """DELETE."""
        return self.conn.delete(self._cid, data, params, **kwargs)

    def options(self, data: Any = "", params: Any = None, **kwargs: Any) -> Response:
        """OPTIONS."""
        return self.conn.options(self._cid, data, params, **kwargs)

    def head(self, params: Any = None, **kwargs: Any) -> Response:
        """HEAD."""
        return self.conn.head(self._cid, params, **kwargs)

    def post(self, data: Any = "", params: Any = None, **kwargs: Any) -> Response:
        """POST."""
        return self.conn.post(self._cid, data, params, **kwargs)

    send = post

    def put(self, data: Any = "", params: Any = None, **kwargs: Any) -> Response:
        """PUT."""
        return self.conn.put(self._cid, data, params, **kwargs)

    def patch(self, data: Any = "", params: Any = None, **kwargs: Any) -> Response:
        """PATCH."""
        return self.conn.patch(self._cid, data, params, **kwargs)

    def upload(self, item: Any, field_name: str = "data", mime_type: str = "text/plain", **kwargs: Any) -> Response:
        """POSTs a file as multipart form data."""
        return self.conn.upload(self._cid, item, field_name, mime_type, **kwargs)

    def ping(self) -> str:
        """Pings the connection."""
        return self.conn.ping(self._cid)

    def rest_call(self, **kwargs: Any) -> Any:
        """See `RESTConnection.rest_call`."""
        return self.conn.rest_call(cid=self._cid, **kwargs)


class Facade:
    """`self.rest`."""

    def __init__(self, service: Any) -> None:
        self._cid = service.cid

    def __getitem__(self, name: str) -> BoundConnection:
        name = resolved_name(name)
        return BoundConnection(self._cid, RESTConnection(name, info(self._cid, name)))

    def get(self, name: str, default: Any = None) -> Any:
        """The connection, or the default where there is none."""
        try:
            return self[name]
        except KeyError:
            return default


class RESTAdapter(Service):
    """A service that is one call of a REST connection; what to send is told by attributes and methods."""

    conn_name = ""
    method = "GET"
    model: Any = None
    has_query_string_id = False
    query_string_id_param: str | None = None
    has_json_id = False
    json_id_param: str | None = None
    sec_def_name: Any = None
    auth_scopes: Any = ""
    log_response = True

    map_response: Any = None
    get_conn_name: Any = None
    get_method: Any = None
    get_path_params: Any = None
    get_query_string: Any = None
    get_request: Any = None
    get_headers: Any = None
    get_auth: Any = None
    get_auth_bearer: Any = None
    get_sec_def_name: Any = None
    get_auth_scopes: Any = None

    def handle(self) -> None:
        """Makes the call and answers with its data."""
        params: dict[str, Any] = {}
        params.update(self._told("get_path_params", {}, {}))
        params.update(self._told("get_query_string", {}, {}))
        if self.has_query_string_id:
            name = self.query_string_id_param or "id"
            params[name] = self.request.input[name]
        data = self._told("get_request", "")
        if self.has_json_id:
            name = self.json_id_param or "id"
            data = {**(data or {}), name: self.request.input[name]}
        conn_name = self._told("get_conn_name", self.conn_name)
        self.response.payload = self.rest[conn_name].rest_call(
            data=data,
            model=self.model,
            callback=self._map,
            params=params,
            headers=self._headers(),
            method=self._told("get_method", self.method),
            sec_def_name=self._told("get_sec_def_name", self.sec_def_name),
            auth_scopes=self._told("get_auth_scopes", self.auth_scopes),
            log_response=self.log_response,
        )

    def _headers(self) -> dict[str, Any]:
        headers: dict[str, Any] = dict(self._told("get_headers", {}))
        auth = self._told("get_auth", None)
        bearer = self._told("get_auth_bearer", None)
        if auth is not None:
            import base64

            username, password = auth
            pair = base64.b64encode(f"{username}:{password}".encode()).decode("ascii")
            headers["Authorization"] = f"Basic {pair}"
        elif bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        return headers

    def _told(self, method: str, otherwise: Any, *args: Any) -> Any:
        function = getattr(self, method)
        if function is None:
            return otherwise
        # Those of 3.2 are given what there is so far, ours need not take it.
        value = function(*args[: _taken(function)])
        return otherwise if value is None else value

    def _map(self, data: Any, **kwargs: Any) -> Any:
        return self.map_response(data, **kwargs) if self.map_response is not None else data


def _taken(function: Any) -> int:
    """How many arguments a method takes beside `self`."""
    code = getattr(function, "__code__", None)
    if code is None:
        return 0
    return max(0, int(code.co_argcount) - (1 if hasattr(function, "__self__") else 0))


