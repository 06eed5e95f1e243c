"""`self.user_config`: the users' configuration files as a tree.

A value that is `$NAME` as a whole is taken from the environment.  What the file
`env.ini` has in its section `env` is part of the environment of services.
"""

from __future__ import annotations

import os
from typing import Any

from bunch import Bunch, bunchify

_tree = Bunch()
_set_by_us: set[str] = set()


def replace(config: dict[str, Any] | None) -> None:
    """Puts a new tree in place of the old; requests under way keep the one they have."""
    global _tree
    config = config or {}
    _set_environment((config.get("env") or {}).get("env") or {})
    _tree = bunchify(_resolved(config))


def user_config() -> Bunch:
    """The tree: `<file>.<section>.<key>`."""
    return _tree


def _set_environment(wanted: dict[str, str]) -> None:
    for name in _set_by_us - set(wanted):
        os.environ.pop(name, None)
    _set_by_us.clear()
    for name, value in wanted.items():
        try:
            os.environ[name] = value
        except ValueError:
            # No name of a variable: an equals sign or a zero byte in it.
            continue
        _set_by_us.add(name)


def _resolved(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(item) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("$"):
        # A variable that is not set leaves the text as it is: it may have been meant so.
        return os.environ.get(value[1:], value)
    return value
