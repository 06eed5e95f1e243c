"""The SDK for services that run in ARINT.

`from arint import Service` and `from zato.server.service import Service` are the
same class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arint.errors import (
        BadRequest,
        Forbidden,
        Inactive,
        InternalServerError,
        LockTimeout,
        MethodNotAllowed,
        ModelValidationError,
        NotFound,
        NotSupported,
        ServiceUnavailable,
        TimeoutException,
        TooManyRequests,
        Unauthorized,
        ZatoException,
    )
    from arint.model import Model, ModelCtx, dataclass
    from arint.rest import RESTAdapter
    from arint.service import PubSubHook, Service, WSXHook
    from arint.stream import Event
    from arint.sio import (
        CSV,
        UTC,
        UUID,
        AsIs,
        Bool,
        Date,
        DateTime,
        Decimal,
        Dict,
        DictList,
        Float,
        Int,
        List,
        Opaque,
        Text,
    )

# Where each name is.  Looked up on first use, so that a service pays only for what it imports.
_WHERE = {
    **dict.fromkeys(("Service", "PubSubHook", "WSXHook"), "arint.service"),
    **dict.fromkeys(
        (
            "AsIs",
            "Bool",
            "CSV",
            "Date",
            "DateTime",
            "Decimal",
            "Dict",
            "DictList",
            "Float",
            "Int",
            "List",
            "Opaque",
            "Text",
            "UTC",
            "UUID",
        ),
        "arint.sio",
    ),
    **dict.fromkeys(("Model", "ModelCtx", "dataclass"), "arint.model"),
    "RESTAdapter": "arint.rest",
    "Event": "arint.stream",
    **dict.fromkeys(
        (
            "BadRequest",
            "Forbidden",
            "Inactive",
            "InternalServerError",
            "LockTimeout",
            "MethodNotAllowed",
            "ModelValidationError",
            "NotFound",
            "NotSupported",
            "ServiceUnavailable",
            "TimeoutException",
            "TooManyRequests",
            "Unauthorized",
            "ZatoException",
        ),
        "arint.errors",
    ),
}

__all__ = [
    "CSV",
    "UTC",
    "UUID",
    "AsIs",
    "BadRequest",
    "Bool",
    "Date",
    "DateTime",
    "Decimal",
    "Dict",
    "DictList",
    "Event",
    "Float",
    "Forbidden",
    "Inactive",
    "Int",
    "InternalServerError",
    "List",
    "LockTimeout",
    "MethodNotAllowed",
    "Model",
    "ModelCtx",
    "ModelValidationError",
    "NotFound",
    "NotSupported",
    "Opaque",
    "PubSubHook",
    "RESTAdapter",
    "Service",
    "ServiceUnavailable",
    "Text",
    "TimeoutException",
    "TooManyRequests",
    "Unauthorized",
    "WSXHook",
    "ZatoException",
    "dataclass",
]


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module `arint` has no attribute `{name}`")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(where), name)
    return value
