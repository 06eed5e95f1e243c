"""Small helpers that services import."""

from zato.common.util.api import as_bool, as_list, asbool, bunchify, grouper, new_cid, uncamelify, utcnow

__all__ = ["as_bool", "as_list", "asbool", "bunchify", "grouper", "new_cid", "uncamelify", "utcnow"]
