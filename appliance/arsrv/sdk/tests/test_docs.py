"""The examples of the integrators' manual are deployed as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

MANUAL = Path(__file__).resolve().parents[4] / "docs" / "user" / "integrator"


def test_every_example_of_the_manual_deploys(deploy: Any) -> None:
    """Each block of Python is a module of its own."""
    blocks = re.findall(r"^```python\n(.*?)^```", (MANUAL / "services.md").read_text(), re.M | re.S)
    assert len(blocks) >= 10
    core = deploy(**{f"example{number}": block for number, block in enumerate(blocks)})
    assert core.failed is None, core.failed
    names = {service["name"] for service in core.ready["services"]}
    assert {"example0.get-photo", "example1.only-here"} <= names


def test_what_the_page_calls_missing_is_missing() -> None:
    """Its tables against the class."""
    from arint.absent import Absent
    from arint.service import Service

    rows = [line for line in (MANUAL / "not-supported.md").read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`self\.([a-z_]+)", row.split("|")[1])}
    absent = {name for name, value in vars(Service).items() if isinstance(value, Absent)}
    assert named - {"out", "request", "server", "invoke_async", "patterns"} <= absent, named - absent
    assert not absent - named


def test_every_kind_of_connection_that_is_missing_is_on_the_page() -> None:
    """And each says what to do instead."""
    from arint.absent import _INSTEAD, Absent
    from arint.outgoing import Outgoing
    from arint.service import Service

    text = (MANUAL / "not-supported.md").read_text()
    for cls in (Service, Outgoing):
        for value in vars(cls).values():
            if isinstance(value, Absent):
                assert f"`{value.what}" in text, value.what
                assert value.what in _INSTEAD, value.what


def test_the_reference_names_what_is_there() -> None:
    """The first table against the class."""
    from arint.absent import Absent
    from arint.service import Service

    supported = (MANUAL / "sdk-reference.md").read_text().partition("## What behaves")[0]
    for name in re.findall(r"`self\.([a-z_]+)", supported):
        assert hasattr(Service, name) and not isinstance(vars(Service).get(name), Absent), name
