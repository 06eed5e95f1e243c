"""Exceptions that services raise and catch."""

from arint.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    HTTPException,
    Inactive,
    InternalServerError,
    LockTimeout,
    MethodNotAllowed,
    ModelValidationError,
    NotFound,
    Reportable,
    ServiceUnavailable,
    TimeoutException,
    TooManyRequests,
    Unauthorized,
    ZatoException,
)

ClientHTTPError = HTTPException
MethodNotAllowedException = MethodNotAllowed

__all__ = [
    "BadRequest",
    "ClientHTTPError",
    "Conflict",
    "Forbidden",
    "HTTPException",
    "Inactive",
    "InternalServerError",
    "LockTimeout",
    "MethodNotAllowed",
    "MethodNotAllowedException",
    "ModelValidationError",
    "NotFound",
    "Reportable",
    "ServiceUnavailable",
    "TimeoutException",
    "TooManyRequests",
    "Unauthorized",
    "ZatoException",
]
