"""Declared input and output: `SimpleIO`, and class-level `input` and `output`.

A declaration is compiled once, when the service is deployed.  Where an element
is declared by its bare name its type follows from the name (`is_active` is a
Bool, `customer_id` an Int); `AsIs` turns that off.

Where the 3.2 dialect wraps an answer into `{"response": ...}` and where not is
decided here too: a class with `SimpleIO` that does not set `response_elem` is
wrapped, one with class-level declarations never.
"""

from __future__ import annotations

from typing import Any

from arint import jsons
from arint.errors import BadRequest
from arint.request import ServiceInput

__all__ = [
    "AsIs",
    "Bool",
    "Boolean",
    "CSV",
    "Date",
    "DateTime",
    "Decimal",
    "Dict",
    "DictList",
    "Elem",
    "Float",
    "ForceType",
    "Int",
    "Integer",
    "List",
    "ListOfDicts",
    "Nested",
    "Opaque",
    "Secret",
    "Text",
    "UTC",
    "UUID",
    "Unicode",
    "compile_declarations",
]

_UNSET: Any = object()

_BOOL_PREFIXES = ("by_", "has_", "is_", "may_", "needs_", "should_")
_INT_SUFFIXES = ("_count", "_id", "_size", "_size_min", "_size_max", "_timeout")
#: Names of elements whose values log lines do not show.
SECRETS = frozenset(
    (
        "auth_data",
        "auth_token",
        "password",
        "password1",
        "password2",
        "secret_key",
        "tls_pem_passphrase",
        "token",
        "api_key",
        "apiKey",
        "xApiKey",
    )
)
_TRUE = frozenset(("true", "1", "yes", "on", "t", "y"))
_FALSE = frozenset(("false", "0", "no", "off", "f", "n"))


class Elem:
    """One element: its name, whether it may be missing, and how values are converted.

    A name that begins with `-` is optional.  `default` stands in for a missing
    optional element.
    """

    json_type: dict[str, Any] = {"type": "string"}

    def __init__(self, name: str, *args: Any, default: Any = _UNSET, **kwargs: Any) -> None:
        self.is_optional = name.startswith("-")
        self.name = name[1:] if self.is_optional else name
        self.default = default
        #: Whether the type was only concluded from the name.
        self.is_inferred = False
        self.args = args
        self.kwargs = kwargs

    def load(self, value: Any) -> Any:
        """A value of the request as the service gets it; raises ValueError."""
        return value

    def dump(self, value: Any) -> Any:
        """A value of the service as it goes into the answer; raises ValueError."""
        return value

    def schema(self) -> dict[str, Any]:
        """The element as JSON Schema."""
        return dict(self.json_type)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'-' if self.is_optional else ''}{self.name})"


class AsIs(Elem):
    """Any value, untouched, whatever the element's name."""

    json_type: dict[str, Any] = {}


class Opaque(AsIs):
    """The same as AsIs: a value the service passes along."""


class Text(Elem):
    """Text.  Numbers become text; objects and lists stay what they are."""

    def load(self, value: Any) -> Any:
        if isinstance(value, str) or value is None or isinstance(value, (dict, list)):
            return value
        if isinstance(value, bytes):
            return value.decode("utf-8")
        return str(value)

    def dump(self, value: Any) -> Any:
        if self.is_inferred and isinstance(value, (int, float)):
            return value
        if isinstance(value, (str, dict, list)) or value is None:
            return value
        if isinstance(value, bytes):
            return value.decode("utf-8")
        if self.is_inferred:
            # Dates, decimals, Models …: JSON's own conversion knows them.
            return value
        return str(value)


class Secret(Text):
    """Text that log lines do not show."""

    json_type = {"type": "string", "format": "password"}


class Bool(Elem):
    """True or False; also `true`, `1`, `yes`, `on` and their opposites."""

    json_type = {"type": "boolean"}

    def load(self, value: Any) -> Any:
        if isinstance(value, bool) or value is None:
            return value
        text = str(value).strip().lower()
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise ValueError("is not a truth value")

    def dump(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.load(value) if value else value
        return value if value is None else bool(value)


class Int(Elem):
    """A whole number."""

    json_type = {"type": "integer"}

    def load(self, value: Any) -> Any:
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        try:
            return int(value)
        except (TypeError, ValueError):
            raise ValueError("is not a whole number") from None

    dump = load


class Float(Elem):
    """A number with a fraction."""

    json_type = {"type": "number"}

    def load(self, value: Any) -> Any:
        if value is None or isinstance(value, float):
            return value
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError("is not a number") from None

    dump = load


class Decimal(Elem):
    """A `decimal.Decimal`; text in the answer, so that no digit is lost."""

    json_type = {"type": "string", "format": "decimal"}

    def load(self, value: Any) -> Any:
        import decimal

        if value is None or isinstance(value, decimal.Decimal):
            return value
        try:
            return decimal.Decimal(str(value))
        except decimal.InvalidOperation:
            raise ValueError("is not a decimal number") from None

    def dump(self, value: Any) -> Any:
        return None if value is None else str(value)


class UUID(Elem):
    """A `uuid.UUID`."""

    json_type = {"type": "string", "format": "uuid"}

    def load(self, value: Any) -> Any:
        import uuid

        if value is None or isinstance(value, uuid.UUID):
            return value
        try:
            return uuid.UUID(str(value))
        except ValueError:
            raise ValueError("is not a UUID") from None

    def dump(self, value: Any) -> Any:
        return None if value is None else str(value)


class Date(Elem):
    """A `datetime.date`; `format` is arrow-style and defaults to ISO 8601."""

    json_type = {"type": "string", "format": "date"}

    def load(self, value: Any) -> Any:
        from arint.clock import parse

        import datetime

        if value is None or isinstance(value, datetime.date):
            return value
        return parse(str(value), self.kwargs.get("format")).date()

    def dump(self, value: Any) -> Any:
        import datetime

        from arint.clock import formatted

        if value is None or isinstance(value, str):
            return value
        if "format" in self.kwargs:
            return formatted(value, self.kwargs["format"])
        if isinstance(value, datetime.datetime):
            value = value.date()
        return value.isoformat()


class DateTime(Elem):
    """A `datetime.datetime`; `format` is arrow-style and defaults to ISO 8601."""

    json_type = {"type": "string", "format": "date-time"}

    def load(self, value: Any) -> Any:
        import datetime

        from arint.clock import parse

        if value is None or isinstance(value, datetime.datetime):
            return value
        return parse(str(value), self.kwargs.get("format"))

    def dump(self, value: Any) -> Any:
        from arint.clock import formatted

        if value is None or isinstance(value, str):
            return value
        if "format" in self.kwargs:
            return formatted(value, self.kwargs["format"])
        return value.isoformat()


class UTC(DateTime):
    """A DateTime in UTC; one without a zone is taken to be in UTC."""

    def load(self, value: Any) -> Any:
        import datetime

        loaded = super().load(value)
        if loaded is None:
            return None
        if loaded.tzinfo is None:
            return loaded.replace(tzinfo=datetime.timezone.utc)
        return loaded.astimezone(datetime.timezone.utc)

    def dump(self, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        return super().dump(self.load(value)).replace("+00:00", "Z")


class CSV(Elem):
    """A list, written as text with commas between its items."""

    def load(self, value: Any) -> Any:
        if value is None or isinstance(value, list):
            return value
        return [item.strip() for item in str(value).split(",")] if value else []

    def dump(self, value: Any) -> Any:
        if value is None or isinstance(value, str):
            return value
        return ",".join(str(item) for item in value)


class List(Elem):
    """A list."""

    json_type = {"type": "array"}

    def load(self, value: Any) -> Any:
        if value is None or isinstance(value, list):
            return value
        if isinstance(value, (tuple, set, frozenset)):
            return list(value)
        if isinstance(value, dict):
            raise ValueError("is not a list")
        return [value]

    def dump(self, value: Any) -> Any:
        return None if value is None else list(value) if not isinstance(value, (str, dict)) else [value]


class Dict(Elem):
    """An object.  Further arguments declare its keys: `Dict('customer', 'name', '-email', Int('age'))`."""

    json_type = {"type": "object"}

    def __init__(self, name: str, *keys: Any, default: Any = _UNSET, **kwargs: Any) -> None:
        super().__init__(name, default=default, **kwargs)
        self.keys = [as_elem(key) for key in keys]

    def load(self, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ValueError("is not an object")
        return self._convert(value, "load") if self.keys else value

    def dump(self, value: Any) -> Any:
        if value is None:
            return None
        value = as_dict(value)
        return self._convert(value, "dump") if self.keys else value

    def _convert(self, value: dict[str, Any], how: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key in self.keys:
            if key.name in value:
                try:
                    out[key.name] = getattr(key, how)(value[key.name])
                except ValueError as exc:
                    raise _Below(key.name, exc) from None
            elif not key.is_optional:
                raise _Below(key.name, ValueError("is missing"))
            elif key.default is not _UNSET:
                out[key.name] = key.default
        return out

    def schema(self) -> dict[str, Any]:
        return _object_schema(self.keys) if self.keys else {"type": "object"}


class DictList(Dict):
    """A list of objects; further arguments declare their keys."""

    json_type = {"type": "array", "items": {"type": "object"}}

    def load(self, value: Any) -> Any:
        return self._each(value, super().load)

    def dump(self, value: Any) -> Any:
        return self._each(value, super().dump)

    def _each(self, value: Any, convert: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, (str, dict)):
            raise ValueError("is not a list of objects")
        out = []
        for index, item in enumerate(value):
            try:
                out.append(convert(item))
            except ValueError as exc:
                raise _Below(str(index), exc) from None
        return out

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": super().schema()}


class _Below(ValueError):
    """Something below the element; `path` leads to it."""

    path: str
    text: str

    def __init__(self, name: str, inner: ValueError) -> None:
        path = name
        text = str(inner)
        if isinstance(inner, _Below):
            path = f"{name}/{inner.path}"
            text = inner.text
        super().__init__(text)
        self.path = path
        self.text = text


# Names that older code has.
Boolean = Bool
Integer = Int
ListOfDicts = DictList
Nested = Dict
Unicode = Text
ForceType = AsIs


def infer(name: str) -> Elem:
    """The element for a bare name."""
    bare = name[1:] if name.startswith("-") else name
    made: Elem
    if bare in SECRETS:
        made = Secret(name)
    elif bare.startswith(_BOOL_PREFIXES):
        made = Bool(name)
    elif bare == "id" or bare.endswith(_INT_SUFFIXES):
        made = Int(name)
    else:
        made = Text(name)
    made.is_inferred = True
    return made


def as_elem(item: Any) -> Elem:
    """A declared item as an element."""
    if isinstance(item, Elem):
        return item
    if isinstance(item, str):
        return infer(item)
    raise TypeError(f"{item!r} is neither an element nor a name")


def _elements(declared: Any) -> list[Elem]:
    """What stands in a declaration: a name, names with commas between, an element, or several of these."""
    if declared is None or declared == () or declared == "":
        return []
    if isinstance(declared, str):
        return [infer(part.strip()) for part in declared.split(",") if part.strip()]
    if isinstance(declared, Elem):
        return [declared]
    return [as_elem(item) for item in declared]


def as_dict(value: Any) -> dict[str, Any]:
    """A dict, Model, row or object as a dict."""
    if isinstance(value, dict):
        return value
    mapping = getattr(value, "_mapping", None)
    if mapping is not None:  # a row of SQLAlchemy
        return dict(mapping)
    to_dict = getattr(value, "to_dict", None)
    if to_dict is not None:
        return to_dict()  # type: ignore[no-any-return]
    asdict = getattr(value, "_asdict", None)
    if asdict is not None:
        return asdict()  # type: ignore[no-any-return]
    raise ValueError("is not an object")


class SIOInput:
    """Declared input of names and elements."""

    def __init__(self, elems: list[Elem], default: Any, skip_empty: Any, request_elem: str | None) -> None:
        self.elems = elems
        self.default = default
        self.skip_empty = _names_of(skip_empty, elems)
        self.request_elem = request_elem

    def read(self, service: Any, call: Any) -> Any:
        """`self.request.input`; raises BadRequest naming the element at fault."""
        payload = call.parsed
        if call.channel == "soap":
            from arint import soaps

            payload = soaps.typed_input(payload, self)
        if call.http_raw:
            params = call.channel_params()
            merge = call.http.get("merge_url_params_req", True)
            over = call.http.get("params_pri", "channel-params-over-msg") == "channel-params-over-msg"
        else:
            params, merge, over = {}, True, True
        if payload and isinstance(payload, (str, bytes)) and not call.data_format:
            payload = _maybe_json(payload)
        if call.data_format == "csv" and hasattr(payload, "dicts"):
            payload = payload.dicts()
        if self.request_elem and isinstance(payload, dict) and isinstance(payload.get(self.request_elem), (dict, list)):
            payload = payload[self.request_elem]
        if isinstance(payload, list):
            return [self._one(call.cid, item if isinstance(item, dict) else {}, params, over) for item in payload]
        if not isinstance(payload, dict):
            try:
                payload = as_dict(payload)
            except ValueError:
                payload = {}
        return self._one(call.cid, payload, params if merge or not payload else {}, over)

    def _one(self, cid: str, payload: dict[str, Any], params: dict[str, Any], over: bool) -> ServiceInput:
        first, second = (params, payload) if over else (payload, params)
        out = ServiceInput()
        for elem in self.elems:
            name = elem.name
            if name in first:
                value = first[name]
            elif name in second:
                value = second[name]
            else:
                value = _UNSET
            if value is _UNSET or (value == "" and elem.is_optional and type(elem) is not Text):
                if not elem.is_optional:
                    raise BadRequest(cid, f"input element `{name}` is missing", True)
                if elem.default is not _UNSET:
                    out[name] = elem.default
                elif name not in self.skip_empty:
                    out[name] = self.default
                continue
            try:
                out[name] = elem.load(value)
            except ValueError as exc:
                path = f"{name}/{exc.path}" if isinstance(exc, _Below) else name
                raise BadRequest(cid, f"input element `{path}` {exc}", True) from None
        return out

    def schema(self) -> dict[str, Any]:
        """The input as JSON Schema."""
        return _object_schema(self.elems)


class SIOOutput:
    """Declared output of names and elements."""

    is_sio = True

    def __init__(
        self,
        elems: list[Elem],
        default: Any,
        is_repeated: bool,
        wrapper: str | None,
        skip_empty: Any,
        force_empty: Any,
    ) -> None:
        self.elems = elems
        self.default = default
        self.is_repeated = is_repeated
        self.wrapper = wrapper
        self.skip_empty = _names_of(skip_empty, elems) - _names_of(force_empty, elems)
        self.names = frozenset(elem.name for elem in elems)

    def check_name(self, name: str) -> None:
        """Raises AttributeError for an element that is not declared."""
        if name not in self.names:
            raise AttributeError(f"output element `{name}` is not declared")

    def values_of(self, value: Any) -> dict[str, Any]:
        """The declared elements that a dict or an object has."""
        try:
            return as_dict(value)
        except ValueError:
            # Anything with attributes will do: an object of an ORM, for one.
            return {name: getattr(value, name) for name in self.names if hasattr(value, name)}

    def write(self, payload: Any) -> Any:
        """The payload as declared, wrapped or not."""
        if isinstance(payload, (list, tuple)) and not hasattr(payload, "_mapping") and not hasattr(payload, "_asdict"):
            value: Any = [self._one(item) for item in payload]
        elif self.is_repeated and not isinstance(payload, dict) and hasattr(payload, "__iter__"):
            value = [self._one(item) for item in payload]
        else:
            value = self._one(payload)
            if self.is_repeated:
                value = [value]
        return {self.wrapper: value} if self.wrapper else value

    def _one(self, item: Any) -> dict[str, Any]:
        values = self.values_of(item)
        out: dict[str, Any] = {}
        for elem in self.elems:
            name = elem.name
            if name in values:
                value = values[name]
                try:
                    value = elem.dump(value)
                except ValueError as exc:
                    if not elem.is_inferred:
                        path = f"{name}/{exc.path}" if isinstance(exc, _Below) else name
                        raise ValueError(f"output element `{path}` {exc}") from None
            elif elem.default is not _UNSET:
                value = elem.default
            elif not elem.is_optional:
                raise ValueError(f"output element `{name}` is missing")
            else:
                value = self.default
            if name in self.skip_empty and _is_empty(value):
                continue
            out[name] = value
        return out

    def schema(self) -> dict[str, Any]:
        """The output as JSON Schema."""
        inner = _object_schema(self.elems)
        if self.is_repeated:
            inner = {"type": "array", "items": inner}
        return {"type": "object", "properties": {self.wrapper: inner}} if self.wrapper else inner


def _names_of(given: Any, elems: list[Elem]) -> frozenset[str]:
    """True means every element, a name or names mean those."""
    if given is True:
        return frozenset(elem.name for elem in elems)
    if isinstance(given, str):
        return frozenset((given,))
    return frozenset(elem.name if isinstance(elem, Elem) else str(elem).removeprefix("-") for elem in given or ())


def _is_empty(value: Any) -> bool:
    return value is None or (hasattr(value, "__len__") and len(value) == 0)


def _maybe_json(payload: Any) -> Any:
    text = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else payload
    if text.lstrip()[:1] in ("{", "["):
        try:
            return jsons.loads(text)
        except jsons.JSONDecodeError:
            return payload
    return payload


def _object_schema(elems: list[Elem]) -> dict[str, Any]:
    required = [elem.name for elem in elems if not elem.is_optional]
    schema: dict[str, Any] = {"type": "object", "properties": {elem.name: elem.schema() for elem in elems}}
    if required:
        schema["required"] = required
    return schema


def compile_declarations(cls: Any) -> tuple[Any, Any]:
    """A class's declared input and output; None for what it does not declare."""
    sio = getattr(cls, "SimpleIO", None)
    if sio is None:
        source: Any = cls
        wrapper = None
    else:
        source = sio
        wrapper = getattr(sio, "response_elem", "response")

    def option(name: str, otherwise: Any = None) -> Any:
        return getattr(source, name, otherwise) if source is not cls else otherwise

    declared_input = _declared(source, cls, "input")
    declared_output = _declared(source, cls, "output")
    default = option("default_value", "")

    spec_in: Any = None
    if _is_model(declared_input):
        spec_in = _model_input(declared_input)
    else:
        elems = _elements(declared_input)
        elems += _elements(option("input_required"))
        elems += _made_optional(_elements(option("input_optional")))
        if elems:
            spec_in = SIOInput(
                elems,
                option("default_input_value", default),
                option("skip_empty_request_keys", False),
                option("request_elem"),
            )

    spec_out: Any = None
    if _is_model(declared_output):
        spec_out = _model_output(declared_output, wrapper)
    else:
        elems = _elements(declared_output)
        elems += _elements(option("output_required"))
        elems += _made_optional(_elements(option("output_optional")))
        repeated = option("output_repeated", False)
        if not isinstance(repeated, (bool, int)):
            # Old code lists the elements of the rows here.
            elems += _elements(repeated)
        if elems:
            spec_out = SIOOutput(
                elems,
                option("default_output_value", default),
                bool(repeated),
                wrapper,
                option("skip_empty_keys", False) or option("skip_empty_response_keys", False),
                option("force_empty_keys", ()),
            )
    return spec_in, spec_out


def _declared(source: Any, cls: Any, what: str) -> Any:
    declared = getattr(source, what, None)
    if declared is None and source is not cls:
        declared = getattr(cls, what, None)
    return declared


def _made_optional(elems: list[Elem]) -> list[Elem]:
    for elem in elems:
        elem.is_optional = True
    return elems


def _is_model(declared: Any) -> bool:
    if declared is None or isinstance(declared, (str, tuple, Elem)):
        return False
    if isinstance(declared, list):
        return False
    from arint.model import model_of

    return model_of(declared) is not None


def _model_input(declared: Any) -> Any:
    from arint.model import ModelInput

    return ModelInput(declared)


def _model_output(declared: Any, wrapper: str | None) -> Any:
    from arint.model import ModelOutput

    return ModelOutput(declared, wrapper)
