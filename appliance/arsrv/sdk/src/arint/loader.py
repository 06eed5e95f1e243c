"""Imports the modules of a deployment and finds the services in them.

This is the deploy check: whatever would make a service fail at its first request
for a reason that can be seen in its source is refused here, with one sentence,
the file and the line.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from types import CodeType, ModuleType
from typing import Any

from arint import naming
from arint.plan import Plan, plain_handle, verb_handles

_logger = logging.getLogger("arint")

_OURS = frozenset({"arint", "zato", "bunch", "requests", "redis", "sqlalchemy", "urllib3", "certifi", "idna", "fastjsonschema", "pg8000", "pymysql", "pip"})


class LoadError(Exception):
    """A deployment is refused: `reason` is one sentence, `file` is relative to the modules' folder."""

    def __init__(self, reason: str, module: str, file: str = "", line: int = 0, traceback: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.module = module
        self.file = file
        self.line = line
        self.traceback = traceback

    def document(self) -> dict[str, Any]:
        """The FAILED frame's payload."""
        return {
            "reason": self.reason,
            "file": self.file,
            "line": self.line,
            "traceback": self.traceback,
            "module": self.module,
        }


def load(modules_dir: str, modules: list[dict[str, Any]]) -> dict[str, Plan]:
    """The services of a deployment by name; raises LoadError."""
    folder = os.path.abspath(modules_dir)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    loaded = [(entry, _import(folder, entry)) for entry in modules]
    plans: dict[str, Plan] = {}
    for entry, module in loaded:
        for plan in _services_of(module, entry):
            other = plans.get(plan.name)
            if other is not None:
                raise LoadError(
                    f"service name `{plan.name}` is used in `{_file_of(other, loaded)}` by class "
                    f"`{other.cls.__name__}` and in `{entry['file']}` by class `{plan.cls.__name__}`",
                    entry["name"],
                    entry["file"],
                    plan.line,
                )
            plans[plan.name] = plan
    for plan in list(plans.values()):
        if not plan.cls.before_add_to_store(plan.logger):
            _logger.info("service `%s` is not deployed: its `before_add_to_store` said no", plan.name)
            del plans[plan.name]
    for plan in plans.values():
        plan.cls.after_add_to_store(plan.logger)
    return plans


def _import(folder: str, entry: dict[str, Any]) -> ModuleType:
    name, file = entry["name"], entry["file"]
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in _OURS:
        raise LoadError(f"module `{name}` has the name of a Python library; rename its file", name, file)
    path = os.path.join(folder, file)
    already = sys.modules.get(name)
    if already is not None and getattr(already, "__file__", None) == path:
        # An earlier module imported it.
        return already
    try:
        if os.path.normpath(file) in (name.replace(".", "/") + ".py", name.replace(".", "/") + "/__init__.py"):
            return importlib.import_module(name)
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise LoadError(f"`{file}` is not a Python file", name, file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except LoadError:
        raise
    except BaseException as exc:
        raise _import_failed(folder, entry, exc) from exc


def _import_failed(folder: str, entry: dict[str, Any], exc: BaseException) -> LoadError:
    import traceback

    name, file = entry["name"], entry["file"]
    line = 0
    if isinstance(exc, SyntaxError) and exc.filename and _inside(folder, exc.filename):
        file, line = os.path.relpath(exc.filename, folder), exc.lineno or 0
        reason = f"{type(exc).__name__}: {exc.msg}"
    else:
        step = exc.__traceback__
        while step is not None:
            where = step.tb_frame.f_code.co_filename
            if _inside(folder, where):
                file, line = os.path.relpath(where, folder), step.tb_lineno
            step = step.tb_next
        if isinstance(exc, SystemExit):
            reason = f"module `{name}` called sys.exit({'' if exc.code is None else repr(exc.code)}) on import"
        else:
            reason = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    return LoadError(reason, name, file, line, "".join(traceback.format_exception(exc)))


def _inside(folder: str, path: str) -> bool:
    return os.path.abspath(path).startswith(folder + os.sep)


def _file_of(plan: Plan, loaded: list[tuple[dict[str, Any], ModuleType]]) -> str:
    return next(str(entry["file"]) for entry, module in loaded if module.__name__ == plan.module)


def _services_of(module: ModuleType, entry: dict[str, Any]) -> list[Plan]:
    from arint.service import PubSubHook, Service

    name, file = entry["name"], entry["file"]
    only = entry.get("names")
    lines = _class_lines(module)
    plans: list[Plan] = []
    for cls in list(vars(module).values()):
        if not isinstance(cls, type) or not issubclass(cls, Service) or cls.__module__ != module.__name__:
            continue
        if any(plan.cls is cls for plan in plans):
            # A second name for the same class.
            continue
        line = lines.get(cls.__qualname__, 0)
        if issubclass(cls, PubSubHook) and plain_handle(cls) is None:
            _logger.warning("class `%s` in `%s` is not deployed: its hooks are not in this release", cls.__name__, file)
            continue
        if plain_handle(cls) is None and not verb_handles(cls):
            if cls.__subclasses__() or getattr(cls, "__abstractmethods__", None):
                # A base for others.
                continue
            raise LoadError(
                f"class `{cls.__name__}` in `{file}` has no `handle` method", name, file, line
            )
        given = cls.__dict__.get("name")
        if given is not None and not isinstance(given, str):
            raise LoadError(
                f"`name` of class `{cls.__name__}` in `{file}` is {given!r} and not text", name, file, line
            )
        service_name = given or naming.default_name(module.__name__, cls.__name__)
        why = naming.refused(service_name)
        if why is not None:
            raise LoadError(why, name, file, line)
        if only is not None and service_name not in only:
            continue
        try:
            plan = Plan(cls, service_name, module.__name__, line)
        except Exception as exc:
            raise LoadError(f"class `{cls.__name__}` in `{file}`: {exc}", name, file, line) from exc
        cls.name = service_name
        cls.logger = plan.logger
        cls._plan = plan
        plans.append(plan)
    plans.sort(key=lambda plan: plan.line)
    same: dict[str, Plan] = {}
    for plan in plans:
        other = same.setdefault(plan.name, plan)
        if other is not plan:
            raise LoadError(
                f"service name `{plan.name}` is used twice in `{file}`, by class `{other.cls.__name__}` "
                f"and by class `{plan.cls.__name__}`",
                name,
                file,
                plan.line,
            )
    return plans


def _class_lines(module: ModuleType) -> dict[str, int]:
    """The line of each class, by qualified name, from the module's compiled code."""
    try:
        code = module.__spec__.loader.get_code(module.__name__)  # type: ignore[union-attr]
    except (AttributeError, ImportError):
        return {}
    lines: dict[str, int] = {}
    if code is not None:
        _collect_lines(code, lines)
    return lines


def _collect_lines(code: CodeType, lines: dict[str, int]) -> None:
    for const in code.co_consts:
        if isinstance(const, CodeType):
            lines[const.co_qualname] = const.co_firstlineno
