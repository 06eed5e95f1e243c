"""The services behind the channels of `parcels.json`.

Made by `arctl import-openapi --as channels --module parcels`; each answers 501
until its `handle` is written.

From the first change on this file is yours: importing again leaves it alone.
"""

# sha256 ab30c47037d3f57a87cf1c17eb2baaf28609103b03f37e9bdff6d3879b9c322e

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from uuid import UUID

from arint import Service
from arint.openapi import Element, NotWritten


@dataclass(kw_only=True)
class Parcel(Element):
    """`Parcel` of the document."""

    id: UUID | None = None
    to: Address
    weight: float
    content: str | None
    class_: Literal['letter', 'box'] | None = field(metadata={'name': 'class'})
    sent: datetime.date | None = None
    labels: Labels | None = None


@dataclass(kw_only=True)
class Address(Element):
    """`Address` of the document."""

    name: str
    city: str
    country: Literal['NO', 'SE', 'PL']
    geo: AddressGeo | None = None


@dataclass(kw_only=True)
class AddressGeo(Element):
    """`AddressGeo` of the document."""

    lat: float | None = None
    lon: float | None = None


@dataclass(kw_only=True)
class Place(Element):
    """`Place` of the document."""

    city: str
    country: Literal['NO', 'SE', 'PL']
    geo: AddressGeo | None = None


@dataclass(kw_only=True)
class Scan(Element):
    """`Scan` of the document."""

    at: datetime.datetime
    kind: Literal['scanned']


@dataclass(kw_only=True)
class Delivery(Element):
    """`Delivery` of the document."""

    kind: Literal['Delivery']
    next: Step | None = None
    signature: Literal['yes'] | None = None


@dataclass(kw_only=True)
class ParcelsListInput(Element):
    """What service `parcels.list` takes."""

    page_size: int | None = field(default=None, metadata={'name': 'page-size'})
    tag: list[str] | str | None = None
    path: bool | None = None
    where: str | None = None


@dataclass(kw_only=True)
class ParcelsListAnswer(Element):
    """`ParcelsListAnswer` of the document."""

    items: list[Parcel]
    next: str | None


@dataclass(kw_only=True)
class ParcelsLabelInput(Element):
    """What service `parcels.label` takes."""

    id: UUID


@dataclass(kw_only=True)
class PostParcelsIdCancelInput(Element):
    """What service `parcels.post-parcels-id-cancel` takes."""

    id: UUID


Labels: TypeAlias = dict[str, str]
Step: TypeAlias = Scan | Delivery
Tree: TypeAlias = list[Any]


class ParcelsList(Service):
    """Lists parcels.

    `filter` (query): see `self.request.http`

    `session` (cookie): see `self.request.http`

    GET /parcels.
    """

    name = 'parcels.list'
    input = ParcelsListInput
    output = ParcelsListAnswer

    def handle(self) -> None:
        raise NotWritten(self)


class ParcelsSend(Service):
    """Sends a parcel.

    POST /parcels.
    """

    name = 'parcels.send'
    input = Parcel

    def handle(self) -> None:
        raise NotWritten(self)


class ParcelsLabel(Service):
    """The label to print.

    GET /parcels/{id}/label.
    """

    name = 'parcels.label'
    input = ParcelsLabelInput

    def handle(self) -> None:
        raise NotWritten(self)


class PostParcelsIdCancel(Service):
    """POST /parcels/{id}:cancel."""

    name = 'parcels.post-parcels-id-cancel'
    input = PostParcelsIdCancelInput

    def handle(self) -> None:
        raise NotWritten(self)


class Tracking(Service):
    """GET /tracking."""

    name = 'parcels.tracking'

    def handle(self) -> None:
        raise NotWritten(self)
