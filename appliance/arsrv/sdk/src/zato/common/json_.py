"""The same as `zato.common.json_internal`."""

from zato.common.json_internal import JSONDecodeError, dumps, json_dumps, json_loads, loads

__all__ = ["JSONDecodeError", "dumps", "json_dumps", "json_loads", "loads"]
