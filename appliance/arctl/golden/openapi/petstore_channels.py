"""The services behind the channels of `petstore.yaml`.

Made by `arctl import-openapi --as channels --module petstore`; each answers
501 until its `handle` is written.

From the first change on this file is yours: importing again leaves it alone.
"""

# sha256 10a828d66bbb5fd73ba6e74f1460dbe657aaf844112228face81a320e2a4ce4f

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from arint import Service
from arint.openapi import Element, NotWritten


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
class FindPetsByStatusInput(Element):
    """What service `petstore.find-pets-by-status` takes."""

    status: list[Literal['available', 'pending', 'sold']] | str | None = None


@dataclass(kw_only=True)
class GetPetByIdInput(Element):
    """What service `petstore.get-pet-by-id` takes."""

    petId: int


@dataclass(kw_only=True)
class UpdatePetWithFormBody(Element):
    """`UpdatePetWithFormBody` of the document."""

    name: str | None = None
    status: str | None = None


@dataclass(kw_only=True)
class UpdatePetWithFormInput(UpdatePetWithFormBody):
    """What service `petstore.update-pet-with-form` takes."""

    petId: int


@dataclass(kw_only=True)
class DeletePetInput(Element):
    """What service `petstore.delete-pet` takes."""

    petId: int


@dataclass(kw_only=True)
class UploadFileInput(Element):
    """What service `petstore.upload-file` takes."""

    petId: int
    additionalMetadata: str | None = None


@dataclass(kw_only=True)
class LoginUserInput(Element):
    """What service `petstore.login-user` takes."""

    username: str
    password: str


Status: TypeAlias = Literal['available', 'pending', 'sold']


class AddPet(Service):
    """Add a new pet to the store.

    POST /api/v3/pet.
    """

    name = 'petstore.add-pet'
    input = Pet
    output = Pet

    def handle(self) -> None:
        raise NotWritten(self)


class FindPetsByStatus(Service):
    """Finds pets by status.

    Several values are divided by commas.

    `X-Request-Id` (header): see `self.request.http`

    GET /api/v3/pet/findByStatus.
    """

    name = 'petstore.find-pets-by-status'
    input = FindPetsByStatusInput
    output = list[Pet]

    def handle(self) -> None:
        raise NotWritten(self)


class GetPetById(Service):
    """Find pet by ID.

    GET /api/v3/pet/{petId}.
    """

    name = 'petstore.get-pet-by-id'
    input = GetPetByIdInput
    output = Pet

    def handle(self) -> None:
        raise NotWritten(self)


class UpdatePetWithForm(Service):
    """Updates a pet with form data.

    POST /api/v3/pet/{petId}.
    """

    name = 'petstore.update-pet-with-form'
    input = UpdatePetWithFormInput

    def handle(self) -> None:
        raise NotWritten(self)


class DeletePet(Service):
    """DELETE /api/v3/pet/{petId}.

    It is deprecated.
    """

    name = 'petstore.delete-pet'
    input = DeletePetInput

    def handle(self) -> None:
        raise NotWritten(self)


class UploadFile(Service):
    """Uploads an image.

    POST /api/v3/pet/{petId}/uploadImage.
    """

    name = 'petstore.upload-file'
    input = UploadFileInput
    output = ApiResponse

    def handle(self) -> None:
        raise NotWritten(self)


class GetInventory(Service):
    """Pet inventories by status.

    GET /api/v3/store/inventory.
    """

    name = 'petstore.get-inventory'

    def handle(self) -> None:
        raise NotWritten(self)


class PlaceOrder(Service):
    """Place an order for a pet.

    POST /api/v3/store/order.
    """

    name = 'petstore.place-order'
    input = Order
    output = Order

    def handle(self) -> None:
        raise NotWritten(self)


class LoginUser(Service):
    """Logs a user in.

    GET /api/v3/user/login.
    """

    name = 'petstore.login-user'
    input = LoginUserInput

    def handle(self) -> None:
        raise NotWritten(self)
