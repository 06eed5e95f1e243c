"""A client for what the outgoing connection `parcels` leads to.

Made of `parcels.json` by `arctl import-openapi --as outgoing --name parcels`:
change that and import again instead of changing this.

In a service: `ParcelsClient(self).some_operation(…)`.
"""

# sha256 8d4e9658d2ab310999b9ad1853fd3804ab34ca2b5740fc6e6876be80ca0fb530

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from uuid import UUID

from arint.openapi import Client, Element, as_json, deep


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
class ParcelsListFilter(Element):
    """`ParcelsListFilter` of the document."""

    before: datetime.date | None = None
    city: str | None = None


@dataclass(kw_only=True)
class ParcelsListAnswer(Element):
    """`ParcelsListAnswer` of the document."""

    items: list[Parcel]
    next: str | None


Labels: TypeAlias = dict[str, str]
Step: TypeAlias = Scan | Delivery
Tree: TypeAlias = list[Any]


class ParcelsClient(Client):
    """Parcels 2.1."""

    connection = 'parcels'
    path_parameter = 'path-'

    def parcels_list(
        self,
        *,
        filter: ParcelsListFilter | None = None,
        page_size: int | None = None,
        tag: list[str] | None = None,
        path: bool | None = None,
        where: dict[str, Any] | None = None,
        session: str | None = None,
    ) -> ParcelsListAnswer:
        """Lists parcels.

        GET /parcels.
        """
        result: ParcelsListAnswer = self._call(
            'GET',
            '/parcels',
            query={
                **deep('filter', filter),
                'page-size': page_size,
                'tag': tag,
                'path': path,
                'where': as_json(where),
            },
            cookies={'session': session},
            accept='application/vnd.parcels+json',
            returns=ParcelsListAnswer,
        )
        return result

    def parcels_send(self, body: Parcel) -> Parcel | None:
        """Sends a parcel.

        POST /parcels.
        """
        result: Parcel | None = self._call(
            'POST',
            '/parcels',
            body=body,
            media='application/json',
            accept='application/json',
            returns=Parcel | None,
        )
        return result

    def parcels_label(self, id: UUID) -> bytes:
        """The label to print.

        GET /parcels/{id}/label.
        """
        result: bytes = self._call(
            'GET',
            '/parcels/{id}/label',
            parts={'id': id},
            accept='application/pdf',
            returns=bytes,
        )
        return result

    def post_parcels_id_cancel(
        self,
        id: UUID,
        *,
        body: dict[str, Any] | None = None,
    ) -> None:
        """POST /parcels/{id}:cancel."""
        self._call(
            'POST',
            '/parcels/{id}:cancel',
            parts={'id': id},
            body=body,
            media='application/merge-patch+json',
        )

    def tracking(self) -> list[Step]:
        """GET /tracking."""
        result: list[Step] = self._call(
            'GET',
            '/tracking',
            accept='application/json',
            returns=list[Step],
        )
        return result
