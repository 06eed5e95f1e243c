"""What the modules stand on that `arctl import-openapi` writes: clients, and services that are to be filled in.

A client is made for one request of a service and calls through an outgoing REST
connection of the box, which has the address and the credentials:

    pet = PetstoreClient(self).get_pet(7)

Statuses from 400 on, and answers that are not what the document says, raise
`ClientError`; a connection that fails raises as `self.out.rest[...]` does.
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Any, Mapping, Sequence
from urllib.parse import urlencode

from arint import jsons
from arint.errors import HTTPException, ModelValidationError
from arint.model import Model, convert

if TYPE_CHECKING:
    from requests import Response

    from arint.service import Service

__all__ = ["Client", "ClientError", "Element", "NotWritten", "as_json", "deep", "joined"]

_PARAMETER = re.compile(r"\{([^{}]+)\}")


class Element(Model):
    """A Model of which what was not set is not sent: None where None is the default."""

    def to_dict(self) -> dict[str, Any]:
        """The elements that are set, by their names in JSON."""
        made = super().to_dict()
        for name, item in getattr(type(self), "__dataclass_fields__", {}).items():
            if item.default is None and getattr(self, name, None) is None:
                made.pop(item.metadata.get("name", name), None)
        return made


class NotWritten(HTTPException):
    """501: a service that was made of a document does nothing yet."""

    status = 501

    def __init__(self, service: Service) -> None:
        kind = type(service)
        where = f"`handle` of class `{kind.__name__}` in module `{kind.__module__}`"
        super().__init__(service.cid, f"service `{service.name}` is not written yet: fill in {where}, and deploy it")


class ClientError(Exception):
    """The other side answered with a status from 400 on, or with what its document does not describe."""

    def __init__(self, message: str, response: Response) -> None:
        super().__init__(message)
        #: The status.
        self.status: int = response.status_code
        #: The body read as JSON, or its text.
        self.data: Any = getattr(response, "data", None)
        #: The answer.
        self.response = response


class Client:
    """The base of the clients; `service` is the one that calls, `timeout` the longest time for a call in seconds."""

    #: The outgoing connection.
    connection = ""
    #: The parameter of the connection's path that takes the rest of the path.
    path_parameter = "path"

    def __init__(self, service: Service, connection: str | None = None, timeout: float | None = None) -> None:
        self._service = service
        self._connection = connection or self.connection
        self._timeout = timeout

    def _call(
        self,
        method: str,
        path: str,
        *,
        parts: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        cookies: Mapping[str, Any] | None = None,
        body: Any = None,
        media: str = "",
        accept: str = "",
        returns: Any = None,
    ) -> Any:
        """Calls an operation and gives its answer as `returns` says."""
        filled = _PARAMETER.sub(lambda found: _part(found.group(1), (parts or {})[found.group(1)]), path)
        params: list[tuple[str, str]] = [(self.path_parameter, filled.lstrip("/"))]
        for name, value in (query or {}).items():
            params.extend(_pairs(name, value))
        if any(name == self.path_parameter for name, _ in params[1:]):
            # It would be taken for the path.
            raise ValueError(f"a parameter of the query is called `{self.path_parameter}`, as that of the connection's path")
        sent = {name: _text(value) for name, value in (headers or {}).items() if value is not None}
        if accept:
            sent.setdefault("Accept", accept)
        jar = [f"{name}={_text(value)}" for name, value in (cookies or {}).items() if value is not None]
        if jar:
            sent["Cookie"] = "; ".join(jar)
        content: bytes | str = b""
        if body is not None:
            content, sent["Content-Type"] = _body(body, media)
        conn = self._service.out.rest[self._connection].conn
        response: Response = conn.http_request(
            method, self._service.cid, content, params, headers=sent, timeout=self._timeout
        )
        what = f"`{self._connection}` answered {method} {filled}"
        if response.status_code >= 400:
            raise ClientError(f"{what} with {response.status_code} {response.reason}".rstrip(), response)
        return _answer(what, response, returns)


def joined(values: Any, separator: str = ",") -> str | None:
    """A list, or the names and values of an object, as one text."""
    if values is None:
        return None
    if isinstance(values, Model):
        values = values.to_dict()
    if isinstance(values, Mapping):
        values = [part for pair in values.items() for part in pair]
    return separator.join(_text(value) for value in values)


def deep(name: str, value: Any) -> dict[str, Any]:
    """An object as parameters `name[element]`."""
    if value is None:
        return {}
    fields = value.to_dict() if isinstance(value, Model) else value
    return {f"{name}[{key}]": item for key, item in fields.items()}


def as_json(value: Any) -> str | None:
    """A value as the JSON text that a parameter has."""
    return None if value is None else jsons.dumps(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return ",".join(_text(item) for item in value)
    if isinstance(value, (Mapping, Model)):
        return jsons.dumps(value)
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _part(name: str, value: Any) -> str:
    """A part of the path.  A slash in it, or nothing at all, would make it the path of something else."""
    text = _text(value)
    if not text or "/" in text:
        raise ValueError(f"parameter `{name}` of the path is {'empty' if not text else 'a text with a slash in it'}")
    return text


def _pairs(name: str, value: Any) -> list[tuple[str, str]]:
    if value is None:
        return []
    if isinstance(value, Model):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in _pairs(str(key), item)]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [(name, _text(item)) for item in value]
    return [(name, _text(value))]


def _body(body: Any, media: str) -> tuple[bytes | str, str]:
    kind = media.split(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return jsons.dumps(body), media
    if kind == "application/x-www-form-urlencoded":
        fields = body.to_dict() if isinstance(body, Model) else body
        return urlencode([pair for name, value in fields.items() for pair in _pairs(name, value)]), media
    if kind == "multipart/form-data":
        return _multipart(body.to_dict() if isinstance(body, Model) else body)
    return body if isinstance(body, (bytes, str)) else jsons.dumps(body), media


def _multipart(fields: Mapping[str, Any]) -> tuple[bytes, str]:
    from urllib3.filepost import encode_multipart_formdata

    made: list[tuple[str, Any]] = []
    for name, value in fields.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, (bytes, bytearray)):
                made.append((name, (name, bytes(item), "application/octet-stream")))
            elif isinstance(item, (Mapping, Model)):
                made.append((name, (None, jsons.dumps(item), "application/json")))
            elif item is not None:
                made.append((name, _text(item)))
    return encode_multipart_formdata(made)


def _answer(what: str, response: Response, returns: Any) -> Any:
    if returns is None:
        return None
    if returns is bytes:
        return response.content
    if not response.content:
        try:
            return convert(None, returns)
        except ModelValidationError:
            raise ClientError(f"{what} with {response.status_code} and no body", response) from None
    kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
    if returns is str and "json" not in kind:
        return response.text
    try:
        return convert(jsons.loads(response.content.decode("utf-8")), returns)
    except ModelValidationError as exc:
        raise ClientError(f"{what} with what its document does not describe: {exc}", response) from exc
    except ValueError as exc:
        raise ClientError(f"{what} with what is no JSON: {exc}", response) from exc
