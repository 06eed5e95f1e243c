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


def test_what_the_reference_calls_missing_is_missing_and_the_rest_is_there() -> None:
    """The two tables of attributes against the class."""
    from arint.absent import Absent
    from arint.service import Service

    text = (MANUAL / "sdk-reference.md").read_text()
    supported, _, rest = text.partition("## What behaves")
    missing = rest.partition("## Not in this release")[2]
    named = set(re.findall(r"`self\.([a-z_]+)", missing)) - {"out", "request", "kvdb", "rest", "outgoing", "aio", "user_config"}
    absent = {name for name, value in vars(Service).items() if isinstance(value, Absent)}
    assert named <= absent, named - absent
    undocumented = absent - named - {"definition", "audit", "slow_responses", "amqp", "translate", "zmq", "invoke_by_id"}
    assert not undocumented
    for name in re.findall(r"`self\.([a-z_]+)", supported):
        assert hasattr(Service, name) and not isinstance(vars(Service).get(name), Absent), name
