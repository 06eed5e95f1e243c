"""`from zato.server.service import Service` and all that is imported beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arint.service import PubSubHook, Service, WSXHook
from arint.sio import (
    CSV,
    UTC,
    UUID,
    AsIs,
    Bool,
    Boolean,
    Date,
    DateTime,
    Decimal,
    Dict,
    DictList,
    Float,
    ForceType,
    Int,
    Integer,
    List,
    ListOfDicts,
    Nested,
    Opaque,
    Text,
    Unicode,
)

if TYPE_CHECKING:
    from arint.model import Model, ModelCtx, dataclass
    from arint.rest import RESTAdapter
    from bunch import Bunch

__all__ = [
    "CSV",
    "UTC",
    "UUID",
    "AsIs",
    "Bool",
    "Boolean",
    "Bunch",
    "Date",
    "DateTime",
    "Decimal",
    "Dict",
    "DictList",
    "Float",
    "ForceType",
    "Int",
    "Integer",
    "List",
    "ListOfDicts",
    "Model",
    "ModelCtx",
    "Nested",
    "Opaque",
    "PubSubHook",
    "RESTAdapter",
    "Service",
    "Text",
    "Unicode",
    "WSXHook",
    "dataclass",
]

# Imported on first use: their modules take milliseconds, and few services want them.
_LATER = {"Model": "arint.model", "ModelCtx": "arint.model", "dataclass": "arint.model", "RESTAdapter": "arint.rest", "Bunch": "bunch"}


def __getattr__(name: str) -> Any:
    where = _LATER.get(name)
    if where is None:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(where), name)
    return value
