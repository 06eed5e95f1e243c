"""A client for what the outgoing connection `petstore` leads to.

Made of `petstore.yaml` by `arctl import-openapi --as outgoing --name
petstore`: change that and import again instead of changing this.

In a service: `PetstoreClient(self).some_operation(…)`.
"""

# sha256 6a97b234ae67946020d5730994d3977adce0e1781a9eabd66076c72efa54b245

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from uuid import UUID

from arint.openapi import Client, Element, joined


@dataclass(kw_only=True)
class Category(Element):
    """`Category` of the document."""

    id: int | None = None
    name: str | None = None


@dataclass(kw_only=True)
class Tag(Element):
    """`Tag` of the document."""

    id: int | None = None
    name: str | None = None


@dataclass(kw_only=True)
class Pet(Element):
    """A pet, with "everything" \\ about it."""

    id: int | None = None
    name: str
    category: Category | None = None
    photoUrls: list[str]
    tags: list[Tag] | None = None
    status: Status | None = None
    x_chip: str | None = field(default=None, metadata={'name': 'x-chip'})
    parents: list[Pet] | None = None


@dataclass(kw_only=True)
class Order(Element):
    """`Order` of the document."""

    id: int | None = None
    petId: int
    quantity: int
    shipDate: datetime.datetime | None = None
    address: OrderAddress | None = None
    complete: bool | None = None


@dataclass(kw_only=True)
class OrderAddress(Element):
    """`OrderAddress` of the document."""

    city: str
    zip: str | None = None


@dataclass(kw_only=True)
class ApiResponse(Element):
    """`ApiResponse` of the document."""

    code: int | None = None
    type: str | None = None
    message: str | None = None


@dataclass(kw_only=True)
class UpdatePetWithFormBody(Element):
    """`UpdatePetWithFormBody` of the document."""

    name: str | None = None
    status: str | None = None


Status: TypeAlias = Literal['available', 'pending', 'sold']


class PetstoreClient(Client):
    """Swagger Petstore 1.0.0.

    A store that sells pets.

    What is sold is gone; what is not can be looked at.
    """

    connection = 'petstore'

    def add_pet(self, body: Pet) -> Pet:
        """Add a new pet to the store.

        POST /pet.
        """
        result: Pet = self._call(
            'POST',
            '/pet',
            body=body,
            media='application/json',
            accept='application/json',
            returns=Pet,
        )
        return result

    def find_pets_by_status(
        self,
        *,
        status: list[Literal['available', 'pending', 'sold']] | None = None,
        x_request_id: UUID | None = None,
    ) -> list[Pet]:
        """Finds pets by status.

        Several values are divided by commas.

        `status`: Status values to look for

        GET /pet/findByStatus.
        """
        result: list[Pet] = self._call(
            'GET',
            '/pet/findByStatus',
            query={'status': joined(status)},
            headers={'X-Request-Id': x_request_id},
            accept='application/json',
            returns=list[Pet],
        )
        return result

    def get_pet_by_id(self, pet_id: int) -> Pet:
        """Find pet by ID.

        `pet_id`: ID of the pet

        GET /pet/{petId}.
        """
        result: Pet = self._call(
            'GET',
            '/pet/{petId}',
            parts={'petId': pet_id},
            accept='application/json',
            returns=Pet,
        )
        return result

    def update_pet_with_form(
        self,
        pet_id: int,
        *,
        body: UpdatePetWithFormBody | None = None,
    ) -> None:
        """Updates a pet with form data.

        `pet_id`: ID of the pet

        POST /pet/{petId}.
        """
        self._call(
            'POST',
            '/pet/{petId}',
            parts={'petId': pet_id},
            body=body,
            media='application/x-www-form-urlencoded',
        )

    def delete_pet(self, pet_id: int) -> None:
        """DELETE /pet/{petId}.

        `pet_id`: ID of the pet

        It is deprecated.
        """
        self._call(
            'DELETE',
            '/pet/{petId}',
            parts={'petId': pet_id},
        )

    def upload_file(
        self,
        pet_id: int,
        body: bytes | str,
        *,
        additional_metadata: str | None = None,
    ) -> ApiResponse:
        """Uploads an image.

        `pet_id`: ID of the pet

        POST /pet/{petId}/uploadImage.
        """
        result: ApiResponse = self._call(
            'POST',
            '/pet/{petId}/uploadImage',
            parts={'petId': pet_id},
            query={'additionalMetadata': additional_metadata},
            body=body,
            media='application/octet-stream',
            accept='application/json',
            returns=ApiResponse,
        )
        return result

    def get_inventory(self) -> dict[str, int]:
        """Pet inventories by status.

        GET /store/inventory.
        """
        result: dict[str, int] = self._call(
            'GET',
            '/store/inventory',
            accept='application/json',
            returns=dict[str, int],
        )
        return result

    def place_order(self, body: Order) -> Order:
        """Place an order for a pet.

        POST /store/order.
        """
        result: Order = self._call(
            'POST',
            '/store/order',
            body=body,
            media='application/json',
            accept='application/json',
            returns=Order,
        )
        return result

    def login_user(self, *, username: str, password: str) -> str:
        """Logs a user in.

        GET /user/login.
        """
        result: str = self._call(
            'GET',
            '/user/login',
            query={'username': username, 'password': password},
            accept='text/plain',
            returns=str,
        )
        return result
