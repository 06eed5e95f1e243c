"""Models: input and output as dataclasses.

    @dataclass(init=False)
    class Customer(Model):
        name: str
        age: optional[int] = None
        orders: list_[Order]

A Model is built from a dict by `Model.from_dict`, which converts and checks every
element and raises `ModelValidationError` with the path of the one at fault.

An element whose name in JSON is no name of Python's says so in its metadata:

        page_size: int = field(metadata={'name': 'page-size'})
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import types
import typing
import uuid
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from arint import jsons
from arint.errors import ModelValidationError

__all__ = ["Model", "ModelCtx", "ModelValidationError", "convert", "dataclass", "field"]

M = TypeVar("M", bound="Model")

_MISSING = dataclasses.MISSING
_NONE = type(None)


class ModelCtx:
    """What `Model.after_created` is given."""

    #: The service the Model was made for, or None.
    service: Any = None
    #: The dict it was made from.
    data: Any = None
    #: The Model's class.
    DataClass: Any = None


class Model:
    """The base of Models; use with `@dataclass(init=False)`."""

    #: Called, if defined, once a Model has been built from a request: `after_created(self, ctx)`.
    after_created: ClassVar[Any] = None

    def __init__(self, **values: Any) -> None:
        for name, item in _fields(type(self)).items():
            if name not in values:
                _set_default(self, name, item)
        for name, value in values.items():
            setattr(self, name, value)

    @classmethod
    def from_dict(cls: type[M], data: Any, service: Any = None) -> M:
        """A Model of a dict; raises ModelValidationError."""
        made: M = build(cls, data, "", service)
        return made

    @classmethod
    def _zato_from_dict(cls: type[M], service: Any, data: Any, extra: Any = None) -> M:
        return cls.from_dict({**data, **(extra or {})}, service)

    @classmethod
    def from_json(cls: type[M], text: str | bytes) -> M:
        """A Model of a JSON object."""
        return cls.from_dict(jsons.loads(text if isinstance(text, str) else text.decode("utf-8")))

    def to_dict(self) -> dict[str, Any]:
        """The elements that are set, Models below as dicts."""
        return {
            _key(name, item): _to_plain(getattr(self, name))
            for name, item in _fields(type(self)).items()
            if hasattr(self, name)
        }

    def to_json(self, default: Any = None, impl_extra: Any = None, **_: Any) -> str:
        """The Model as JSON text."""
        return jsons.dumps(self.to_dict())

    def clone(self: M) -> M:
        """An independent copy."""
        import copy

        return copy.deepcopy(self)

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self, name)
        except AttributeError:
            raise KeyError(name) from None

    def get(self, name: str, default: Any = None) -> Any:
        """An element's value, or the default where it is not set."""
        return getattr(self, name, default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in _fields(type(self)) and hasattr(self, name)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name, None)!r}" for name in _fields(type(self)))
        return f"{type(self).__name__}({values})"


def _to_plain(value: Any) -> Any:
    if isinstance(value, Model):
        return value.to_dict()
    if isinstance(value, (list, tuple)):
        return [_to_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    return value


def _fields(cls: Any) -> dict[str, Any]:
    return getattr(cls, "__dataclass_fields__", {})


def _key(name: str, item: Any) -> str:
    """What an element is called in JSON."""
    metadata = item.metadata
    return str(metadata.get("name", name)) if metadata else name


_hints: dict[Any, dict[str, Any]] = {}


def _hints_of(cls: Any) -> dict[str, Any]:
    hints = _hints.get(cls)
    if hints is None:
        hints = _hints[cls] = typing.get_type_hints(cls)
    return hints


def _set_default(instance: Any, name: str, item: Any) -> bool:
    if item.default is not _MISSING:
        setattr(instance, name, item.default)
    elif item.default_factory is not _MISSING:
        setattr(instance, name, item.default_factory())
    else:
        return False
    return True


def build(cls: Any, data: Any, path: str, service: Any = None) -> Any:
    """An instance of a dataclass of a dict; `path` is where the dict lies."""
    if isinstance(data, cls):
        return data
    if isinstance(data, Model):
        data = data.to_dict()
    if not isinstance(data, dict):
        raise ModelValidationError(path or "/", f"element `{path or '/'}` is not an object")
    instance = cls.__new__(cls)
    hints = _hints_of(cls)
    for name, item in _fields(cls).items():
        hint = hints.get(name, Any)
        key = _key(name, item)
        where = f"{path}/{key}"
        if key in data:
            setattr(instance, name, _convert(data[key], hint, where, service))
        elif _set_default(instance, name, item):
            continue
        elif _is_optional(hint):
            setattr(instance, name, None)
        else:
            raise ModelValidationError(where, f"element `{where}` is missing")
    after_created = getattr(instance, "after_created", None)
    if after_created is not None:
        ctx = ModelCtx()
        ctx.service = service
        ctx.data = data
        ctx.DataClass = cls
        after_created(ctx)
    return instance


def convert(value: Any, hint: Any) -> Any:
    """What JSON has, as what a type hint says: Models, lists, dicts, unions, dates and so on.

    Raises ModelValidationError with the path of what does not fit.
    """
    return _convert(value, hint, "", None)


def _is_optional(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType) and _NONE in typing.get_args(hint)


def _fail(path: str, what: str) -> ModelValidationError:
    path = path or "/"
    return ModelValidationError(path, f"element `{path}` {what}")


def _convert(value: Any, hint: Any, path: str, service: Any) -> Any:
    if hint is Any or isinstance(hint, TypeVar):
        return value
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, typing.get_args(hint), path, service)
    if value is None:
        raise _fail(path, "is null")
    if origin in (list, tuple, set, frozenset) or hint in (list, tuple, set, frozenset):
        if not isinstance(value, (list, tuple)):
            raise _fail(path, "is not a list")
        args = [arg for arg in typing.get_args(hint) if arg is not ...]
        inner = args[0] if args else Any
        items = [_convert(item, inner, f"{path}[{index}]", service) for index, item in enumerate(value)]
        kind = origin or hint
        return items if kind is list else kind(items)
    if origin is dict or hint is dict:
        if not isinstance(value, dict):
            raise _fail(path, "is not an object")
        args = list(typing.get_args(hint))
        if len(args) == 2:
            return {key: _convert(item, args[1], f"{path}/{key}", service) for key, item in value.items()}
        return value
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise _fail(path, f"is not one of {', '.join(map(repr, typing.get_args(hint)))}")
        return value
    if not isinstance(hint, type):
        return value
    if dataclasses.is_dataclass(hint):
        return build(hint, value, path, service)
    return _convert_scalar(value, hint, path)


def _convert_union(value: Any, options: tuple[Any, ...], path: str, service: Any) -> Any:
    if value is None and _NONE in options:
        return None
    real = [option for option in options if option is not _NONE]
    for option in real:
        if isinstance(option, type) and type(value) is option:
            return value
    error: ModelValidationError | None = None
    for option in real:
        try:
            return _convert(value, option, path, service)
        except ModelValidationError as exc:
            error = error or exc
    assert error is not None
    raise error


def _convert_scalar(value: Any, hint: type, path: str) -> Any:
    if hint is bool:
        if isinstance(value, bool):
            return value
        text = str(value).strip().lower()
        if text in ("true", "1", "yes", "on"):
            return True
        if text in ("false", "0", "no", "off"):
            return False
        raise _fail(path, "is not a truth value")
    if isinstance(value, hint) and not isinstance(value, bool):
        return value
    try:
        if hint is int:
            if isinstance(value, (bool, float)) and value != int(value):
                raise ValueError
            return int(value)
        if hint is float:
            return float(value)
        if hint is str:
            if isinstance(value, (dict, list)):
                raise ValueError
            return str(value)
        if hint is bytes:
            return value.encode("utf-8") if isinstance(value, str) else bytes(value)
        if hint is decimal.Decimal:
            return decimal.Decimal(str(value))
        if hint is uuid.UUID:
            return uuid.UUID(str(value))
        if hint is datetime.datetime:
            return datetime.datetime.fromisoformat(str(value))
        if hint is datetime.date:
            return datetime.date.fromisoformat(str(value))
    except (TypeError, ValueError, decimal.InvalidOperation):
        raise _fail(path, f"is not of type `{hint.__name__}`") from None
    return value


# As declared input and output


def model_of(declared: Any) -> tuple[Any, bool] | None:
    """A declaration's Model and whether it is a list of it; None if it is no Model."""
    is_list = False
    if typing.get_origin(declared) in (typing.Union, types.UnionType):
        real = [option for option in typing.get_args(declared) if option is not _NONE]
        declared = real[0] if len(real) == 1 else None
    if typing.get_origin(declared) is list:
        (declared,) = typing.get_args(declared)
        is_list = True
    if isinstance(declared, type) and issubclass(declared, Model):
        if not dataclasses.is_dataclass(declared):
            raise TypeError(f"Model `{declared.__name__}` is not decorated with `@dataclass(init=False)`")
        return declared, is_list
    return None


class ModelInput:
    """Declared input that is a Model."""

    def __init__(self, declared: Any) -> None:
        found = model_of(declared)
        assert found is not None
        self.model, self.is_list = found
        _hints_of(self.model)

    def read(self, service: Any, call: Any) -> Any:
        """`self.request.input`; raises ModelValidationError."""
        from arint.sio import _maybe_json, as_dict

        data = call.parsed
        if call.channel == "soap":
            from arint import soaps

            data = soaps.typed_input(data, self)
        if isinstance(data, self.model):
            return data
        if data and isinstance(data, (str, bytes)):
            data = _maybe_json(data)
        if call.data_format == "csv" and hasattr(data, "dicts"):
            data = data.dicts()
        if self.is_list:
            if not isinstance(data, list):
                raise ModelValidationError("/", "input is not a list")
            return [build(self.model, item, f"[{index}]", service) for index, item in enumerate(data)]
        if isinstance(data, list):
            raise ModelValidationError("/", "input is not an object")
        if not isinstance(data, dict):
            try:
                data = as_dict(data)
            except ValueError:
                data = {}
        if call.http_raw:
            params = call.channel_params()
            if params and call.http.get("merge_url_params_req", True):
                if call.http.get("params_pri", "channel-params-over-msg") == "channel-params-over-msg":
                    data = {**data, **params}
                else:
                    data = {**params, **data}
        return build(self.model, data, "", service)

    def schema(self) -> dict[str, Any]:
        """The input as JSON Schema."""
        inner = _schema(self.model, ())
        return {"type": "array", "items": inner} if self.is_list else inner


class ModelOutput:
    """Declared output that is a Model; never wrapped."""

    is_sio = False
    is_repeated = False

    def __init__(self, declared: Any, wrapper: str | None) -> None:
        found = model_of(declared)
        assert found is not None
        self.model, self.is_list = found
        _hints_of(self.model)

    def write(self, payload: Any) -> Any:
        """The payload as JSON has it."""
        return _to_plain(payload)

    def schema(self) -> dict[str, Any]:
        """The output as JSON Schema."""
        inner = _schema(self.model, ())
        return {"type": "array", "items": inner} if self.is_list else inner


_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    dict: {"type": "object"},
    list: {"type": "array"},
    decimal.Decimal: {"type": "string", "format": "decimal"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.date: {"type": "string", "format": "date"},
}


def _schema(hint: Any, above: tuple[Any, ...]) -> dict[str, Any]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        real = [option for option in typing.get_args(hint) if option is not _NONE]
        return _schema(real[0], above) if len(real) == 1 else {"anyOf": [_schema(option, above) for option in real]}
    if origin is list:
        return {"type": "array", "items": _schema(typing.get_args(hint)[0], above)}
    if origin is dict:
        return {"type": "object"}
    if origin is typing.Literal:
        return {"enum": list(typing.get_args(hint))}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if hint in above:
            # A Model that contains itself: one level is told.
            return {"type": "object"}
        hints = _hints_of(hint)
        properties: dict[str, Any] = {}
        required = []
        for name, item in _fields(hint).items():
            key = _key(name, item)
            properties[key] = _schema(hints.get(name, Any), (*above, hint))
            has_default = item.default is not _MISSING or item.default_factory is not _MISSING
            if not has_default and not _is_optional(hints.get(name, Any)):
                required.append(key)
        schema: dict[str, Any] = {"type": "object", "title": hint.__name__, "properties": properties}
        if required:
            schema["required"] = required
        return schema
    return dict(_SCALARS.get(hint, {}))
