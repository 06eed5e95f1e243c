"""What a service may raise, and what the SDK raises.

Which status and which text a caller sees follows from the class; `life` does
the mapping.  The texts of exceptions without one of these classes are shown
only where the core is told so (`return_tracebacks`).
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "BadRequest",
    "CallEnded",
    "Conflict",
    "Forbidden",
    "HTTPException",
    "Inactive",
    "InternalServerError",
    "LockTimeout",
    "MethodNotAllowed",
    "ModelValidationError",
    "NotFound",
    "NotSupported",
    "Reportable",
    "ServiceUnavailable",
    "TimeoutException",
    "TooManyRequests",
    "Unauthorized",
    "ZatoException",
]


class ZatoException(Exception):
    """The base of everything the SDK raises; `cid` and `msg` may be left out."""

    def __init__(self, cid: Any = None, msg: Any = None) -> None:
        super().__init__(msg)
        self.cid = cid
        self.msg = msg

    def __str__(self) -> str:
        return "" if self.msg is None else str(self.msg)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} cid:`{self.cid}`, msg:`{self.msg}`>"


class HTTPException(ZatoException):
    """An answer other than 200: `status` goes to the caller, `msg` as its details."""

    status = 500
    default_msg = "An error has occurred"
    #: Whether `msg` goes to the caller (else the class's own fixed text).
    needs_msg = True

    def __init__(self, cid: Any = None, msg: Any = None, needs_msg: bool | None = None) -> None:
        super().__init__(cid, self.default_msg if msg is None else msg)
        self.args = (self.msg,)
        if needs_msg is not None:
            self.needs_msg = needs_msg

    @property
    def reason(self) -> Any:
        """The same as `msg`."""
        return self.msg

    @property
    def details(self) -> Any:
        """What the caller is told."""
        return self.msg if self.needs_msg else self.default_msg


class BadRequest(HTTPException):
    """400.  The caller sees `msg` only when `needs_msg` is true, else `Bad request`."""

    status = 400
    default_msg = "Bad request"
    needs_msg = False


class Unauthorized(HTTPException):
    """401, with `challenge` as the header `WWW-Authenticate`."""

    status = 401
    default_msg = "Unauthorized"

    def __init__(self, cid: Any = None, msg: Any = None, challenge: str | None = None, **kwargs: Any) -> None:
        super().__init__(cid, msg, **kwargs)
        self.challenge = challenge


class Forbidden(HTTPException):
    """403."""

    status = 403
    default_msg = "Forbidden"


class NotFound(HTTPException):
    """404."""

    status = 404
    default_msg = "Not found"


class MethodNotAllowed(HTTPException):
    """405."""

    status = 405
    default_msg = "Method not allowed"


class Conflict(HTTPException):
    """409."""

    status = 409
    default_msg = "Conflict"


class TooManyRequests(HTTPException):
    """429."""

    status = 429
    default_msg = "Too many requests"


class InternalServerError(HTTPException):
    """500."""

    status = 500
    default_msg = "Internal server error"


class ServiceUnavailable(HTTPException):
    """503."""

    status = 503
    default_msg = "Service unavailable"


#: The name older code has for an exception whose message the caller may see.
Reportable = HTTPException


class ModelValidationError(ZatoException):
    """400: input does not fit the Model; `elem_path` says which element, such as `/lines[2]/sku`."""

    status = 400
    needs_msg = True

    def __init__(self, elem_path: str, msg: str, cid: Any = None) -> None:
        super().__init__(cid, msg)
        self.elem_path = elem_path
        self.args = (msg,)

    @property
    def reason(self) -> Any:
        """The same as `msg`."""
        return self.msg


class Inactive(ZatoException):
    """The service or connection exists but is switched off."""

    def __init__(self, name: str, cid: Any = None) -> None:
        super().__init__(cid, f"`{name}` is inactive")
        self.name = name
        self.args = (self.msg,)


class TimeoutException(ZatoException):
    """A service or connection did not answer in time."""

    def __init__(self, cid: Any = None, msg: Any = None) -> None:
        super().__init__(cid, msg)
        self.args = (msg,)


class LockTimeout(ZatoException):
    """Somebody else held the lock for all of `block` seconds."""

    def __init__(self, cid: Any = None, msg: Any = None) -> None:
        super().__init__(cid, msg)
        self.args = (msg,)


class NotSupported(NotImplementedError):
    """A part of the 3.2 SDK that this release does not have."""


class CallEnded(BaseException):
    """A service tried to end its process; only its own request ends.

    Not an `Exception`, so that `except Exception` in a service does not make it
    go on after what it meant to be its last line.
    """
