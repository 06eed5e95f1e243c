"""Bodies that are not JSON: XML as object trees, CSV as rows; and the tools around secrets."""

from __future__ import annotations

import hashlib
import time
from typing import Any
from xml.etree import ElementTree

import pytest
from arint import csvs, xmls
from arint.crypto import Crypto
from arint.errors import BadRequest, NotSupported
from arint.schemas import Schema
from hypothesis import given
from hypothesis import strategies as st

ORDER = """<order id="o-1" xmlns:n="urn:n">
  <customer><name>Ann</name></customer>
  <line no="1"><sku>a</sku><price>1.50</price></line>
  <line no="2"><sku>b</sku><price>2</price></line>
  <paid>true</paid><empty/><n:note>hey</n:note>
</order>"""


def test_children_are_reached_by_attribute_index_and_name() -> None:
    order = xmls.parse(ORDER)
    assert (order.tag, order.get("id"), order.customer.name.text) == ("order", "o-1", "Ann")
    assert [line.get("no") for line in order.line] == ["1", "2"]
    assert (len(order.line), order.line[-1].sku, order["line"][0].sku) == (2, "b", "a")
    assert order["{urn:n}note"].text == "hey"
    assert ("customer" in order, "nobody" in order) == (True, False)
    with pytest.raises(AttributeError, match="no such child: nobody"):
        order.nobody
    assert order.customer.name.getparent().getparent() is order or order.customer.getparent().tag == "order"
    assert [child.tag for child in order.customer.getchildren()] == ["name"]
    assert order.countchildren() == 6


def test_leaves_compare_and_calculate_as_their_values() -> None:
    order = xmls.parse(ORDER)
    prices = [line.price for line in order.line]
    assert prices[0] + prices[1] == 3.5
    assert (2 * prices[1], 5 - prices[1], prices[1] > prices[0], int(prices[1]), float(prices[0])) == (4, 3, True, 2, 1.5)
    assert (order.paid.pyval, bool(order.paid), order.empty.pyval, bool(order.empty)) == (True, True, None, False)
    assert (str(order.customer.name), f"{order.customer.name}") == ("Ann", "Ann")


def test_paths_find_what_they_say() -> None:
    order = xmls.parse(ORDER)
    found = order.find("line/sku")
    assert found is not None and found == "a"
    assert [sku.text for sku in order.findall("line.sku")] == ["a", "b"]
    assert order.xpath("//sku/text()") == ["a", "b"]
    assert order.xpath("/order/line/@no") == ["1", "2"]
    assert order.xpath("line[@no='2']")[0].sku == "b"
    assert order.findtext("customer/name") == "Ann"
    with pytest.raises(NotSupported, match="the parser knows"):
        order.xpath("line[count(sku)=1]")


def test_a_document_comes_out_as_it_went_in() -> None:
    assert xmls.text_of(xmls.parse("<a><b>1</b></a>")) == "<a><b>1</b></a>"
    assert xmls.text_of(ElementTree.fromstring("<a/>")) == "<a />"
    assert xmls.parse(ORDER).to_dict()["line"] == [
        {"@no": "1", "sku": "a", "price": 1.5},
        {"@no": "2", "sku": "b", "price": 2},
    ]


@pytest.mark.parametrize("body", [b"", b"<a>", b"<a></b>", b"\xff\xfe<", "<a>&nbsp;</a>"])
def test_what_is_no_xml_is_refused(body: Any) -> None:
    with pytest.raises(ValueError):
        xmls.parse(body)


def test_entities_cannot_be_declared() -> None:
    bomb = '<!DOCTYPE a [' + "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9)) + "]><a>&e9;</a>"
    begun = time.monotonic()
    for body in (bomb.encode(), bomb.encode("utf-16"), b"<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>"):
        with pytest.raises(ValueError, match="DOCTYPE"):
            xmls.parse(body)
    assert time.monotonic() - begun < 2


@given(st.binary(max_size=200))
def test_any_bytes_are_xml_or_refused(body: bytes) -> None:
    try:
        xmls.parse(body).to_dict()
    except ValueError:
        pass


@given(st.text(max_size=200))
def test_any_text_is_csv_or_refused(text: str) -> None:
    try:
        rows = csvs.parse(text)
    except ValueError:
        return
    rows.dicts()


@given(st.lists(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n\0;\t|\ufeff"), min_size=1), min_size=2, max_size=4), min_size=1))
def test_rows_come_back_as_they_were_written(rows: list[list[str]]) -> None:
    assert csvs.parse(csvs.text_of(rows)) == rows


def test_the_separator_is_found() -> None:
    assert csvs.parse("a;b,c\n1;2\n") == [["a;b", "c"], ["1;2"]] or csvs.parse("a;b;c\n1;2;3\n") == [["a", "b", "c"], ["1", "2", "3"]]
    assert csvs.parse("\ufeffa\tb\n1\t2") == [["a", "b"], ["1", "2"]]
    assert csvs.parse("a;b\n1;2\n").dicts() == [{"a": "1", "b": "2"}]


def test_dicts_are_written_under_their_names() -> None:
    assert csvs.text_of([{"a": 1}, {"a": 2, "b": "x,y"}]) == 'a,b\r\n1,\r\n2,"x,y"\r\n'
    assert csvs.text_of([]) == ""


def test_hashes_of_3_2_verify() -> None:
    """The form of passlib: adapted base64 without padding, the rounds in between."""
    import base64

    salt = bytes(range(32))
    encoded = [base64.b64encode(part).decode().rstrip("=").replace("+", ".") for part in (salt, hashlib.pbkdf2_hmac("sha512", b"x", salt, 1000))]
    old = f"$pbkdf2-sha512$1000${encoded[0]}${encoded[1]}"
    crypto = Crypto(None)
    assert crypto.verify_hash("x", old)
    assert not crypto.verify_hash("y", old)
    for wrong in ("", "$pbkdf2-sha512$", old.replace("1000", "none"), old.replace("1000", "99999999999"), old[:-3] + "???"):
        assert not crypto.verify_hash("x", wrong)
    assert crypto.hash_secret("x", rounds=1) != crypto.hash_secret("x", rounds=1)


def test_a_schema_is_refused_on_deployment_when_it_is_none(deploy: Any) -> None:
    core = deploy(m="from arint import Service\nclass A(Service):\n    schema = 'a/path.json'\n    def handle(self):\n        pass\n")
    assert "its `schema` is the path `a/path.json`" in core.failed["reason"]
    core = deploy(m="from arint import Service\nclass A(Service):\n    schema = {'$ref': 'http://x/y'}\n    def handle(self):\n        pass\n")
    assert "it refers to `http://x/y`" in core.failed["reason"], core.failed


def test_a_schema_names_the_element() -> None:
    class Call:
        cid = "c"
        parsed: Any = {"a": [{"b": 1}, {"b": "x"}]}

    schema = Schema({"properties": {"a": {"items": {"properties": {"b": {"type": "integer"}}}}}})
    with pytest.raises(BadRequest, match="element `/a/1/b` must be integer"):
        schema.check(Call)


def test_invokes_is_enforced_where_the_box_says_so(deploy: Any) -> None:
    source = """
from arint import Service
class Target(Service):
    name = 'target'
    def handle(self):
        self.response.payload = 'done'
class Good(Service):
    name = 'good'
    invokes = ['target']
    def handle(self):
        self.response.payload = self.invoke('target')
class Bad(Service):
    name = 'bad'
    invokes = ['other']
    def handle(self):
        self.response.payload = self.invoke('target')
"""
    free = deploy(m=source)
    assert free.call("bad").text == "done"
    strict = deploy(m=source, hello={"enforce_service_invokes": True})
    assert strict.call("good").text == "done"
    assert "must not invoke `target`" in str(strict.call("bad").error)


def test_secrets_are_not_in_the_log(deploy: Any) -> None:
    core = deploy(
        m="""
from arint import Service
from arint.sio import Secret
class A(Service):
    name = 'a'
    input = 'user', 'password', Secret('pin'), '-nested'
    def handle(self):
        self.log_input('asked')
        self.response.payload = {'token': 'hidden', 'user': 'u'}
        self.log_output()
"""
    )
    core.call("a", {"user": "ann", "password": "hidden", "pin": "hidden", "nested": {"api_key": "hidden"}})
    line = core.log_of("asked")["message"]
    assert "ann" in line and "hidden" not in line and "******" in line
    line = core.log_of("output of")["message"]
    assert "'user': 'u'" in line and "hidden" not in line


def test_env_ini_is_the_environment_and_follows_changes(deploy: Any) -> None:
    from arint import frames

    source = """
import os
from arint import Service
class A(Service):
    name = 'a'
    def handle(self):
        self.response.payload = [self.user_config.crm.server.token, os.environ.get('CRM_TOKEN')]
"""
    config = {"env": {"env": {"CRM_TOKEN": "one"}}, "crm": {"server": {"token": "$CRM_TOKEN"}}}
    core = deploy(m=source, hello={"user_config": config})
    assert core.call("a").json() == ["one", "one"]
    core.send(frames.with_json(frames.CONFIG, 0, {"user_config": {"crm": {"server": {"token": "$CRM_TOKEN"}}}}))
    assert core.call("a").json() == ["$CRM_TOKEN", None]
