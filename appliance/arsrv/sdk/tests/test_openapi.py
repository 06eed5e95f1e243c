"""The clients that `arctl import-openapi` writes: typed, clean, and calling what the document says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

import pytest
from harness import Core

from arint.model import Model
from arint.openapi import Element

SDK = Path(__file__).resolve().parent.parent
GOLDEN = SDK.parents[1] / "arctl" / "golden" / "openapi"
MODULES = sorted(str(path) for path in GOLDEN.glob("*.py"))

SERVICE = '''
from datetime import date, datetime, timezone
from uuid import UUID

from arint import Service
from arint.openapi import ClientError
from parcels_client import Address, Delivery, Parcel, ParcelsClient, ParcelsListFilter, Scan
from petstore_client import Pet, PetstoreClient, UpdatePetWithFormBody

ID = UUID('5a7f0f4e-0000-4000-8000-000000000001')

class Lists(Service):
    name = 'shop.list'

    def handle(self):
        page = ParcelsClient(self).parcels_list(
            filter=ParcelsListFilter(city='Oslo', before=date(2026, 1, 2)), page_size=2, tag=['a', 'b&c'],
            path=True, where={'x': [1]}, session='s1')
        first = page.items[0]
        self.response.payload = [type(first).__name__, first.id == ID, first.to.geo.lat, first.class_, page.next]

class Sends(Service):
    name = 'shop.send'

    def handle(self):
        to = Address(name='Anna', city='Oslo', country='NO')
        sent = ParcelsClient(self).parcels_send(Parcel(to=to, weight=1.5, content=None, class_='box'))
        self.response.payload = sent

class Label(Service):
    name = 'shop.label'

    def handle(self):
        self.response.payload = ParcelsClient(self, timeout=2.5).parcels_label(ID)

class Cancels(Service):
    name = 'shop.cancel'

    def handle(self):
        ParcelsClient(self, 'other').post_parcels_id_cancel(ID, body={'a': None})
        PetstoreClient(self).update_pet_with_form(7, body=UpdatePetWithFormBody(name='a b'))
        PetstoreClient(self).find_pets_by_status(status=['available', 'sold'], x_request_id=ID)

class Steps(Service):
    name = 'shop.steps'

    def handle(self):
        scan, delivery = ParcelsClient(self).tracking()
        self.response.payload = [isinstance(scan, Scan), scan.at == datetime(2026, 1, 1, tzinfo=timezone.utc),
                                 isinstance(delivery, Delivery), delivery.signature]

class Fails(Service):
    name = 'shop.fails'

    def handle(self):
        try:
            PetstoreClient(self).get_pet_by_id(self.request.payload['id'])
        except (ClientError, ValueError) as exc:
            self.response.payload = [type(exc).__name__, str(exc), getattr(exc, 'status', None), getattr(exc, 'data', None)]
'''

PARCEL = {
    "id": "5a7f0f4e-0000-4000-8000-000000000001",
    "to": {"name": "Anna", "city": "Oslo", "country": "NO", "geo": {"lat": 59.9}},
    "weight": 1,
    "content": None,
    "class": "box",
}
ANSWERS: dict[str, tuple[int, str, bytes]] = {
    "GET parcels": (200, "application/json", json.dumps({"items": [PARCEL], "next": None}).encode()),
    "POST parcels": (202, "", b""),
    "GET parcels/5a7f0f4e-0000-4000-8000-000000000001/label": (200, "application/pdf", b"%PDF\xff"),
    "GET tracking": (
        200,
        "application/json",
        b'[{"kind": "scanned", "at": "2026-01-01T00:00:00Z"}, {"kind": "Delivery", "signature": "yes", "more": 1}]',
    ),
    "GET pet/findByStatus": (200, "application/json", b"[]"),
    "GET pet/4": (404, "application/json", b'{"message": "no such pet"}'),
    "GET pet/5": (200, "application/json", b'{"name": "Rex"}'),
    "GET pet/6": (200, "application/json", b"<html>"),
    "GET pet/7": (200, "application/json", b""),
}


class Side:
    """Answers as the core would."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, Any], bytes]] = []

    def __call__(self, meta: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        if meta["op"] == "rest_info":
            path = "/{path-}" if meta["conn"] in ("parcels", "other") else "/api/v3/{path}"
            return {"data_format": "json", "address": "https://x", "url_path": path, "is_active": True}, b""
        self.seen.append((meta, body))
        (path,) = meta["path_params"].values()
        status, media, answer = ANSWERS.get(f"{meta['method']} {path}", (204, "", b""))
        headers = [["content-type", media]] if media else []
        return {"status": status, "reason": "Not Found" if status == 404 else "", "headers": headers}, answer


@pytest.fixture
def shop(deploy: Any) -> Iterator[tuple[Core, Side]]:
    """A worker with clients and the services that use them."""
    side = Side()
    clients = {name: (GOLDEN / f"{name}.py").read_text() for name in ("parcels_client", "petstore_client")}
    core = deploy(hello={"respond": side}, **clients, shop=SERVICE)
    assert core.failed is None, core.failed
    yield core, side


def test_what_is_written_is_typed_and_clean() -> None:
    """mypy as strict as for the SDK, and flake8."""
    assert MODULES
    found = subprocess.run([sys.executable, "-m", "mypy", "--no-error-summary", *MODULES], cwd=SDK, text=True, capture_output=True)
    assert found.returncode == 0, found.stdout + found.stderr
    flake8 = shutil.which("flake8")
    assert flake8 is not None, "flake8 is missing; install the Debian package flake8"
    found = subprocess.run([flake8, "--isolated", *MODULES], text=True, capture_output=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_parameters_go_as_the_document_says(shop: Any) -> None:
    """Styles of queries, JSON, cookies, and a parameter with the name of the connection's own."""
    core, side = shop
    assert core.call("shop.list").json() == ["Parcel", True, 59.9, "box", None]
    meta, body = side.seen[0]
    assert (meta["method"], meta["conn"], meta["path_params"], body) == ("GET", "parcels", {"path-": "parcels"}, b"")
    assert meta["query"] == [
        ["filter[before]", "2026-01-02"],
        ["filter[city]", "Oslo"],
        ["page-size", "2"],
        ["tag", "a"],
        ["tag", "b&c"],
        ["path", "true"],
        ["where", '{"x":[1]}'],
    ]
    assert meta["headers"]["Cookie"] == "session=s1"
    assert meta["headers"]["Accept"] == "application/vnd.parcels+json"
    result = core.call("shop.cancel")
    assert result.error is None, result
    cancel, form, found = side.seen[1:]
    assert (cancel[0]["conn"], cancel[0]["path_params"]["path-"]) == ("other", f"parcels/{PARCEL['id']}:cancel")
    assert (cancel[0]["headers"]["Content-Type"], cancel[1]) == ("application/merge-patch+json", b'{"a":null}')
    assert (form[0]["headers"]["Content-Type"], form[1]) == ("application/x-www-form-urlencoded", b"name=a+b")
    assert found[0]["query"] == [["status", "available,sold"]]
    assert found[0]["headers"]["X-Request-Id"] == PARCEL["id"]


def test_what_was_not_set_is_not_sent(shop: Any) -> None:
    """But what may be null and has to be there is; an answer without a body is None."""
    core, side = shop
    assert core.call("shop.send").body == b""
    assert json.loads(side.seen[0][1]) == {
        "to": {"name": "Anna", "city": "Oslo", "country": "NO"},
        "weight": 1.5,
        "content": None,
        "class": "box",
    }


def test_answers_are_what_the_document_says(shop: Any) -> None:
    """Files as bytes; of several kinds the one whose name stands in it."""
    core, side = shop
    assert core.call("shop.label").body == b"%PDF\xff"
    assert side.seen[0][0]["timeout_ms"] == 2500
    assert core.call("shop.steps").json() == [True, True, True, "yes"]


def test_services_that_are_to_be_filled_in_say_so(deploy: Any) -> None:
    """501 with where, once the input is what the document says."""
    core = deploy(**{name: (GOLDEN / f"{name}.py").read_text() for name in ("petstore_channels", "parcels_channels")})
    assert core.failed is None, core.failed
    services = {service["name"]: service for service in core.ready["services"]}
    assert {"petstore.get-pet-by-id", "parcels.list", "parcels.post-parcels-id-cancel"} <= services.keys()
    result = core.call("petstore.get-pet-by-id", b'{"petId": 7}')
    assert result.meta["status"] == 501
    assert result.error is not None
    assert result.error["details"] == (
        "service `petstore.get-pet-by-id` is not written yet: fill in `handle` of class `GetPetById` "
        "in module `petstore_channels`, and deploy it"
    )
    result = core.call("petstore.get-pet-by-id", b'{"petId": "x"}')
    assert result.error is not None
    assert result.error["type"] == "ModelValidationError"


@pytest.mark.parametrize(
    ("pet", "told"),
    [
        (4, ["ClientError", "`petstore` answered GET /pet/4 with 404 Not Found", 404, {"message": "no such pet"}]),
        (
            5,
            [
                "ClientError",
                "`petstore` answered GET /pet/5 with what its document does not describe: element `/photoUrls` is missing",
                200,
                {"name": "Rex"},
            ],
        ),
        (
            6,
            [
                "ClientError",
                "`petstore` answered GET /pet/6 with what is no JSON: Expecting value: line 1 column 1 (char 0)",
                200,
                "<html>",
            ],
        ),
        (7, ["ClientError", "`petstore` answered GET /pet/7 with 200 and no body", 200, ""]),
        ("a/b", ["ValueError", "parameter `petId` of the path is a text with a slash in it", None, None]),
        ("", ["ValueError", "parameter `petId` of the path is empty", None, None]),
    ],
)
def test_what_goes_wrong_is_told(shop: Any, pet: Any, told: list[Any]) -> None:
    """Never as if the caller of the service had been wrong."""
    core, _ = shop
    assert core.call("shop.fails", json.dumps({"id": pet}).encode()).json() == told


def test_an_element_may_have_another_name_in_json() -> None:
    """Both ways, and in the schema."""

    @dataclass(init=False)
    class Page(Model):
        page_size: int = field(metadata={"name": "page-size"})
        plain: str = "x"

    page = Page.from_dict({"page-size": "3"})
    assert (page.page_size, page.to_dict()) == (3, {"page-size": 3, "plain": "x"})
    with pytest.raises(Exception, match="element `/page-size` is missing"):
        Page.from_dict({"page_size": 3})
    from arint.model import ModelInput

    assert ModelInput(Page).schema()["required"] == ["page-size"]


def test_what_is_none_by_default_is_left_out() -> None:
    """And what was set to None by hand without a default is not."""

    @dataclass(kw_only=True)
    class Change(Element):
        name: str | None
        note: str | None = None
        size: int | None = field(default=None, metadata={"name": "max-size"})

    assert Change(name=None).to_dict() == {"name": None}
    assert Change(name="a", note="b", size=0).to_dict() == {"name": "a", "note": "b", "max-size": 0}
