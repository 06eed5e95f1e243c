"""`self.user_config`: the users' configuration files as a tree."""

from __future__ import annotations

from typing import Any

from bunch import Bunch, bunchify

_tree = Bunch()


def replace(config: dict[str, Any] | None) -> None:
    """Puts a new tree in place of the old; requests under way keep the one they have."""
    global _tree
    _tree = bunchify(config or {})


def user_config() -> Bunch:
    """The tree: `<file>.<section>.<key>`."""
    return _tree
