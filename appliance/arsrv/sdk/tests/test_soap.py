"""What stands in the body of a SOAP message, and the body of the answer (`arint.soaps`)."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from arint import soaps
from arint.xmls import XMLElement

_ENVELOPE = '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{}</s:Body></s:Envelope>'


def typed(text: str, schema: dict[str, Any]) -> Any:
    return soaps.typed(ElementTree.fromstring(text), schema)


def test_the_body_is_its_first_element() -> None:
    """Without one it is an empty text."""
    body = soaps.body_of(_ENVELOPE.format("<a><b>1</b></a><c/>"))
    assert isinstance(body, XMLElement) and body.tag == "a" and body.b == 1
    assert soaps.body_of(_ENVELOPE.format("")) == ""
    with pytest.raises(ValueError, match="it has no body"):
        soaps.body_of("<a/>")


def test_elements_are_read_as_their_schema_has_them() -> None:
    """Lists stay lists, texts stay texts, and what is undeclared is read as it looks."""
    schema = {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "lines": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
            "free": {"type": "object"},
        },
    }
    text = (
        '<q:o xmlns:q="urn:q" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><q:id>007</q:id><q:tags>1</q:tags>'
        '<q:lines><q:n>2</q:n></q:lines><q:free><x>3</x></q:free><q:other>4</q:other></q:o>'
    )
    assert typed(text, schema) == {"id": "007", "tags": ["1"], "lines": [{"n": "2"}], "free": {"x": 3}, "other": 4}
    nil = '<o xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><id xsi:nil="true"/></o>'
    assert typed(nil, schema) == {"id": None}
    assert typed("<o><item>1</item><item>2</item></o>", {"type": "array", "items": {"type": "string"}}) == ["1", "2"]


def test_values_are_written_as_elements() -> None:
    """A list is one element for each item; names and texts are such that XML has them."""
    written = "".join(soaps._children({"a": [1, {"b": True}], "c d": "<\x01>", "1e": None, "l": [[1, 2]]}))
    assert written == (
        '<a>1</a><a><b>true</b></a><c_d>&lt;\ufffd&gt;</c_d><_1e xsi:nil="true"/><l><item>1</item><item>2</item></l>'
    )
    assert "".join(soaps._children([1, 2])) == "<item>1</item><item>2</item>"
