"""XML bodies as object trees: `payload.customer.name`, as services know them from lxml.objectify.

    order = self.request.payload            # the root element
    order.customer.name.text                # or str(order.customer.name)
    order.line[1].sku                       # the second of several
    [line.sku.text for line in order.line]  # all of them
    order.get('id')                         # an attribute
    order['{urn:x}note']                    # a child in another namespace

A leaf compares and calculates as the value that its text is: `order.total * 2`.
It stands on the parser of the standard library.

**Invariant:** a document with a DOCTYPE is refused: that is where entities are
declared, and those can be made to fill any memory.
"""

from __future__ import annotations

import operator
import re
from typing import Any, Callable, Iterator
from xml.etree import ElementTree

__all__ = ["XMLElement", "is_element", "parse", "text_of"]

_INT = re.compile(r"[+-]?\d{1,300}\Z")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.?\d+)([eE][+-]?\d{1,4})?\Z")
_BOOLS = {"true": True, "false": False}


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ValueError("it has a DOCTYPE, which is not accepted")


def parse(body: bytes | str) -> XMLElement:
    """The root of a document; raises ValueError with one sentence."""
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(body)
        root = parser.close()
    except ElementTree.ParseError as exc:
        raise ValueError(str(exc)) from None
    return XMLElement(root, None, None)


def is_element(value: Any) -> bool:
    """Whether something is an element: ours, the standard library's, or lxml's."""
    return isinstance(value, XMLElement) or (
        hasattr(value, "tag") and hasattr(value, "attrib") and hasattr(value, "iter")
    )


def text_of(value: Any) -> str:
    """An element as a document."""
    if isinstance(value, XMLElement):
        value = value._element
    if type(value).__module__.partition(".")[0] == "lxml":
        from lxml import etree  # type: ignore[import-not-found,import-untyped,unused-ignore]

        return str(etree.tostring(value, encoding="unicode"))
    return ElementTree.tostring(value, encoding="unicode")


def _value(element: ElementTree.Element) -> Any:
    text = element.text
    if text is None:
        return None
    stripped = text.strip()
    if _INT.match(stripped):
        return int(stripped)
    if _FLOAT.match(stripped):
        return float(stripped)
    return _BOOLS.get(stripped, text)


class XMLElement:
    """One element; by attribute its children."""

    __slots__ = ("_element", "_siblings", "_parent")

    def __init__(
        self, element: ElementTree.Element, parent: XMLElement | None, siblings: list[ElementTree.Element] | None
    ) -> None:
        self._element = element
        self._parent = parent
        #: All children of the parent that have this name, this one among them.
        self._siblings = siblings

    # Children

    def __getattr__(self, name: str) -> XMLElement:
        if name.startswith("__"):
            raise AttributeError(name)
        found = self._named(name)
        if not found:
            raise AttributeError(f"no such child: {self._full(name)}")
        return XMLElement(found[0], self, found)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.__getattr__(key)
        same = self._siblings or [self._element]
        if isinstance(key, slice):
            return [XMLElement(item, self._parent, same) for item in same[key]]
        return XMLElement(same[key], self._parent, same)

    def __iter__(self) -> Iterator[XMLElement]:
        same = self._siblings or [self._element]
        return (XMLElement(item, self._parent, same) for item in same)

    def __len__(self) -> int:
        return len(self._siblings) if self._siblings else 1

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self._named(name))

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *(child.tag.rpartition("}")[2] for child in self._element)]

    def _full(self, name: str) -> str:
        if name.startswith("{"):
            return name[2:] if name.startswith("{}") else name
        tag = self._element.tag
        return f"{tag[: tag.index('}') + 1]}{name}" if tag.startswith("{") else name

    def _named(self, name: str) -> list[ElementTree.Element]:
        full = self._full(name)
        return [child for child in self._element if child.tag == full]

    def getchildren(self) -> list[XMLElement]:
        """All children."""
        return list(self.iterchildren())

    def iterchildren(self) -> Iterator[XMLElement]:
        """All children, one by one."""
        for child in self._element:
            yield XMLElement(child, self, [other for other in self._element if other.tag == child.tag])

    def countchildren(self) -> int:
        """How many children there are."""
        return len(self._element)

    def getparent(self) -> XMLElement | None:
        """The element around this one."""
        return self._parent

    def find(self, path: str, namespaces: dict[str, str] | None = None) -> XMLElement | None:
        """The first element at a path such as `customer/name` or `customer.name`."""
        found = self._element.find(_slashed(path), namespaces)
        return None if found is None else XMLElement(found, None, None)

    def findall(self, path: str, namespaces: dict[str, str] | None = None) -> list[XMLElement]:
        """Every element at a path."""
        return [XMLElement(found, None, None) for found in self._element.findall(_slashed(path), namespaces)]

    def findtext(self, path: str, default: Any = None, namespaces: dict[str, str] | None = None) -> Any:
        """The text of the first element at a path."""
        return self._element.findtext(_slashed(path), default, namespaces)

    def xpath(self, path: str, namespaces: dict[str, str] | None = None) -> list[Any]:
        """Elements, attributes or texts at a path, as far as the standard library knows XPath."""
        at = path.strip()
        last = at.rpartition("/")[2]
        if last == "text()" or last.startswith("@"):
            at = at[: -len(last)].rstrip("/") or "."
        found = self._found(at, namespaces)
        if last == "text()":
            return [element.text for element in found if element.text]
        if last.startswith("@"):
            return [element.attrib[last[1:]] for element in found if last[1:] in element.attrib]
        return [XMLElement(element, None, None) for element in found]

    def _found(self, path: str, namespaces: dict[str, str] | None) -> list[ElementTree.Element]:
        if path.startswith("//"):
            path = "." + path
        elif path.startswith("/"):
            first, _, rest = path[1:].partition("/")
            if first not in ("*", self._element.tag):
                return []
            path = rest or "."
        try:
            return self._element.findall(path, namespaces)
        except SyntaxError as exc:
            from arint.errors import NotSupported

            raise NotSupported(
                f"XPath `{path}`: {exc}; the parser knows paths, `//`, `*`, `[n]`, `[@a='b']` and `[child='text']`"
            ) from None

    # The element itself

    @property
    def tag(self) -> str:
        """Its name, with the namespace in braces."""
        return self._element.tag

    @property
    def text(self) -> str | None:
        """Its text."""
        return self._element.text

    @property
    def tail(self) -> str | None:
        """The text behind it."""
        return self._element.tail

    @property
    def attrib(self) -> dict[str, str]:
        """Its attributes."""
        return self._element.attrib

    @property
    def pyval(self) -> Any:
        """The value that its text is: a number, a truth value, or text."""
        return _value(self._element)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self._element.get(name, default)

    def keys(self) -> Any:
        """The names of its attributes."""
        return self._element.keys()

    def items(self) -> Any:
        """Its attributes as pairs."""
        return self._element.items()

    def iter(self, tag: str | None = None) -> Iterator[XMLElement]:
        """It and everything below it."""
        return (XMLElement(element, None, None) for element in self._element.iter(tag))

    def itertext(self) -> Iterator[str]:
        """All text in it."""
        return self._element.itertext()

    def to_dict(self) -> Any:
        """Children by name without namespaces, several of a name as a list; a leaf's value."""
        if len(self._element) == 0 and not self._element.attrib:
            return _value(self._element)
        out: dict[str, Any] = {f"@{name}": value for name, value in self._element.attrib.items()}
        for child in self._element:
            name = child.tag.rpartition("}")[2]
            value = XMLElement(child, None, None).to_dict()
            if name in out:
                known = out[name]
                if isinstance(known, list):
                    known.append(value)
                else:
                    out[name] = [known, value]
            else:
                out[name] = value
        if len(self._element) == 0:
            out["#text"] = _value(self._element)
        return out

    # As a value

    def __str__(self) -> str:
        return self._element.text or ""

    def __repr__(self) -> str:
        return f"<XMLElement {self._element.tag}>"

    def __bool__(self) -> bool:
        return len(self._element) > 0 or bool(_value(self._element))

    def __int__(self) -> int:
        return int(_value(self._element))

    __index__ = __int__

    def __float__(self) -> float:
        return float(_value(self._element))

    def __hash__(self) -> int:
        return hash(_value(self._element))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, XMLElement):
            other = _value(other._element)
        return bool(_value(self._element) == other or (isinstance(other, str) and str(self) == other))


def _slashed(path: str) -> str:
    return path if "/" in path or path.startswith((".", "{", "*")) else path.replace(".", "/")


def _forward(function: Callable[..., Any]) -> Callable[[XMLElement, Any], Any]:
    def forwarded(self: XMLElement, other: Any) -> Any:
        return function(self.pyval, other.pyval if isinstance(other, XMLElement) else other)

    return forwarded


def _backward(function: Callable[..., Any]) -> Callable[[XMLElement, Any], Any]:
    def turned(self: XMLElement, other: Any) -> Any:
        return function(other, self.pyval)

    return turned


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(XMLElement, f"__{_name}__", _forward(getattr(operator, _name)))
    setattr(XMLElement, f"__r{_name}__", _backward(getattr(operator, _name)))
for _name in ("lt", "le", "gt", "ge"):
    setattr(XMLElement, f"__{_name}__", _forward(getattr(operator, _name)))
