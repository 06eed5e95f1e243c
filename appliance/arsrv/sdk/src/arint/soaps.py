"""SOAP channels: what stands in the body of a message, and the body of the answer.

The core has checked the envelope and hands it on as it came.  A service gets the
first element of the body as `self.request.payload`, an object tree as of `xmls`,
and where it declares input, `self.request.input` of it.  Its payload becomes the
body of the answer: an element or XML text as it is, anything else as children of
an element that is called as the request's, with `Response` behind.

**Invariant:** what `describe` tells of an answer is what `encode` writes.
"""

from __future__ import annotations

import re
from typing import Any, Iterable
from xml.etree import ElementTree

from arint import jsons, xmls
from arint.xmls import XMLElement

__all__ = ["body_of", "describe", "encode", "typed"]

_ENVELOPES = ("http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope")
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_XSD = "http://www.w3.org/2001/XMLSchema"

#: The content type that tells the core what the answer is.
_BODY = "text/xml"
_WHOLE = "application/soap+xml"

_NO_NAME = re.compile(r"[^\w.\-]")
_NO_CHAR = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>\s*")

_ANY = (
    '<xs:complexType><xs:sequence><xs:any minOccurs="0" maxOccurs="unbounded" processContents="lax"/>'
    "</xs:sequence></xs:complexType>"
)
_TYPES = {"integer": "xs:integer", "number": "xs:double", "boolean": "xs:boolean"}
_FORMATS = {"decimal": "xs:decimal", "date-time": "xs:dateTime", "date": "xs:date"}


# In


def body_of(message: bytes | str) -> Any:
    """The first element of a message's body; an empty text where there is none.  Raises ValueError."""
    envelope = xmls.parse(message)._element
    for child in envelope:
        namespace, _, name = child.tag[1:].partition("}") if child.tag.startswith("{") else ("", "", child.tag)
        if name == "Body" and namespace in _ENVELOPES:
            for element in child:
                return XMLElement(element, None, None)
            return ""
    raise ValueError("it has no body")


def typed_input(payload: Any, declared: Any) -> Any:
    """What stands in a body, as declared input takes it."""
    if not isinstance(payload, XMLElement):
        return payload
    schema = getattr(declared, "_soap_schema", None)
    if schema is None:
        schema = declared._soap_schema = declared.schema()
    return typed(payload._element, schema)


def typed(element: ElementTree.Element, schema: dict[str, Any]) -> Any:
    """An element as its schema has it: lists stay lists with one item in them, and texts stay texts."""
    if element.get(f"{{{_XSI}}}nil") in ("true", "1"):
        return None
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("items") or {}
        return [typed(child, items) for child in element]
    if kind == "object" or len(element):
        properties = schema.get("properties")
        if properties is None:
            value = XMLElement(element, None, None).to_dict()
            return {} if value is None else value
        out: dict[str, Any] = {}
        for child in element:
            name = child.tag.rpartition("}")[2]
            inner = properties.get(name)
            if inner is None:
                out[name] = XMLElement(child, None, None).to_dict()
            elif inner.get("type") == "array":
                out.setdefault(name, []).append(typed(child, inner.get("items") or {}))
            else:
                out[name] = typed(child, inner)
        return out
    return element.text or ""


# Out


def encode(plan: Any, call: Any, response: Any) -> tuple[int, str, dict[str, Any] | None, bytes]:
    """A finished response as status, content type, headers and body.  Raises ValueError."""
    parts = response.__dict__ if response is not None else {}
    payload = parts.get("payload", "")
    content_type = _BODY
    if isinstance(payload, (bytes, bytearray, memoryview)):
        payload = bytes(payload).decode("utf-8")
    if xmls.is_element(payload):
        text = xmls.text_of(payload)
        content_type = _kind_of(payload.tag)
    elif isinstance(payload, str):
        text = _DECLARATION.sub("", payload, count=1) if payload.lstrip().startswith("<") else ""
        if text:
            content_type = _checked(text)
        else:
            text = _element(call, _escaped(payload))
    elif hasattr(type(payload), "__next__") or hasattr(type(payload), "__anext__"):
        raise ValueError("the payload is a generator, which a SOAP channel cannot send")
    else:
        # By way of JSON, everything is a dict, a list or plain.
        value = jsons.loads(jsons.dumps(plan.unwrapped(payload)))
        text = _element(call, "".join(_children(value)))
    return int(parts.get("status_code", 200)), content_type, parts.get("headers"), text.encode("utf-8", "replace")


def _checked(text: str) -> str:
    try:
        return _kind_of(xmls.parse(text).tag)
    except ValueError as exc:
        reason = exc
    # Several elements side by side may stand in a body too.
    try:
        xmls.parse(f"<x>{text}</x>")
    except ValueError:
        raise ValueError(f"the payload is not XML: {reason}") from None
    return _BODY


def _kind_of(tag: str) -> str:
    return _WHOLE if tag in [f"{{{namespace}}}Envelope" for namespace in _ENVELOPES] else _BODY


def _element(call: Any, inside: str) -> str:
    """The element of the answer, in the namespace of the request's."""
    namespace, name = "", _name(call.plan.name)
    request = call.parsed if call.has_parsed else None
    if isinstance(request, XMLElement):
        namespace, _, name = request.tag[1:].rpartition("}") if request.tag.startswith("{") else ("", "", request.tag)
    declared = f' xmlns="{_escaped(namespace)}"' if namespace else ""
    nil = f' xmlns:xsi="{_XSI}"' if "xsi:nil" in inside else ""
    return f"<{name}Response{declared}{nil}>{inside}</{name}Response>"


def _children(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _named(_name(str(key)), inner)
    elif isinstance(value, list):
        yield from _named("item", value)
    elif value is not None:
        yield _scalar(value)


def _named(name: str, value: Any) -> Iterable[str]:
    if isinstance(value, list):
        for item in value:
            if isinstance(item, list):
                yield f"<{name}>{''.join(_named('item', item))}</{name}>"
            else:
                yield from _named(name, item)
    elif value is None:
        yield f'<{name} xsi:nil="true"/>'
    else:
        yield f"<{name}>{''.join(_children(value))}</{name}>"


def _scalar(value: Any) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    return _escaped(str(value))


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    return _NO_CHAR.sub("\ufffd", text)


def _name(text: str) -> str:
    """A text as the name of an element."""
    name = _NO_NAME.sub("_", text)
    return name if name[:1].isalpha() or name[:1] == "_" else f"_{name}"


# The schema


def describe(plan: Any, operation: str, namespace: str) -> str:
    """The messages of a service as XML Schema."""
    output = plan.output
    answer = output.schema() if output is not None else None
    wrapper = getattr(output, "wrapper", None)
    if answer is not None and wrapper is not None:
        answer = answer["properties"][wrapper]
    request = plan.input.schema() if plan.input is not None else None
    return (
        f'<xs:schema xmlns:xs="{_XSD}" targetNamespace="{_escaped(namespace)}" elementFormDefault="qualified">'
        f'<xs:element name="{operation}">{_content(request)}</xs:element>'
        f'<xs:element name="{operation}Response">{_content(answer)}</xs:element></xs:schema>'
    )


def _content(schema: dict[str, Any] | None) -> str:
    """The type of an element with this schema."""
    if schema is None:
        return _ANY
    if schema.get("type") == "array":
        schema = {"type": "object", "properties": {"item": schema}}
    properties = schema.get("properties")
    if properties is None:
        return _ANY
    required = schema.get("required") or ()
    inside = "".join(_declared(_name(name), inner, name in required) for name, inner in properties.items())
    return f"<xs:complexType><xs:sequence>{inside}</xs:sequence></xs:complexType>"


def _declared(name: str, schema: dict[str, Any], is_required: bool) -> str:
    occurs = "" if is_required else ' minOccurs="0"'
    if schema.get("type") == "array":
        occurs = ' minOccurs="0" maxOccurs="unbounded"'
        schema = schema.get("items") or {}
        if schema.get("type") == "array":
            # A list in a list is an element with elements in it.
            return f'<xs:element name="{name}"{occurs} nillable="true">{_content(schema)}</xs:element>'
    if schema.get("type") == "object":
        return f'<xs:element name="{name}"{occurs} nillable="true">{_content(schema)}</xs:element>'
    kind = _FORMATS.get(schema.get("format", ""), _TYPES.get(schema.get("type", ""), "xs:string"))
    return f'<xs:element name="{name}" type="{kind}"{occurs} nillable="true"/>'
