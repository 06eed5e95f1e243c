"""What `self.lock` raises."""

from arint.errors import LockTimeout
from arint.lock import Lock

__all__ = ["Lock", "LockTimeout"]
