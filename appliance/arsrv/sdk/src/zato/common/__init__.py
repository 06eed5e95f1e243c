"""Exceptions under the name that code from before 3.2 imports them by."""

from arint.errors import Inactive, TimeoutException, ZatoException

__all__ = ["Inactive", "TimeoutException", "ZatoException"]
