"""How services are named, and which names are the producer's."""

from __future__ import annotations

import re

_COMPONENTS = frozenset(
    "arclst arldb arsrv arwadm arsched arkvd arpusub arvpn ardpx armail aros arctl arint".split()
)
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_FIRST = re.compile(r"[.\-_ ]")


def uncamelify(name: str) -> str:
    """`GetPhoto` as `get-photo`, `GetHTTPData` as `get-http-data`."""
    return _WORDS.sub("-", name).lower()


def default_name(module: str, class_name: str) -> str:
    """The name of a service that gives none: `photos.py` and `GetPhoto` make `photos.get-photo`."""
    return f"{module}.{uncamelify(class_name)}".replace("_", "-").replace("--", "-").replace(".-", ".")


def refused(name: str) -> str | None:
    """Why a service may not have this name; None if it may."""
    if not name.strip():
        return "a service's name is empty"
    if name.startswith("AR"):
        return f"service name `{name}` begins with `AR`, which is kept for the producer's own services"
    first = _FIRST.split(name, maxsplit=1)[0].lower()
    if first in _COMPONENTS:
        return f"service name `{name}` begins with `{first}`, which is the name of a part of ARINT"
    return None
