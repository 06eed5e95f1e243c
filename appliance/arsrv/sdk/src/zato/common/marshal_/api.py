"""Models."""

from arint.model import Model, ModelCtx, ModelValidationError, dataclass

__all__ = ["Model", "ModelCtx", "ModelValidationError", "dataclass"]
