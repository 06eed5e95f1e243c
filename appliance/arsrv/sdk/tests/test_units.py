"""Pieces without a worker: names, dates, Bunch, JSON, Models, and the module tree of old imports."""

from __future__ import annotations

import copy
import datetime
import importlib
import json
import pickle

import pytest
from arint import clock, jsons, naming
from bunch import Bunch, bunchify, unbunchify
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [
        ("GetPhoto", "get-photo"),
        ("GetHTTPData", "get-http-data"),
        ("HTTPClient2", "http-client2"),
        ("GetS3Object", "get-s3-object"),
        ("CRM", "crm"),
        ("lower", "lower"),
    ],
)
def test_class_names_as_words(class_name: str, expected: str) -> None:
    """Acronyms stay whole."""
    assert naming.uncamelify(class_name) == expected


def test_the_default_name_has_dashes_only() -> None:
    """Underscores of modules and classes."""
    assert naming.default_name("my_photos", "Get_Photo") == "my-photos.get-photo"


@given(st.datetimes(min_value=datetime.datetime(1000, 1, 1)))
def test_a_formatted_date_is_read_back(moment: datetime.datetime) -> None:
    """Property: parse is the inverse of formatted."""
    format = "dddd D MMMM YYYY, HH:mm:ss.SSSSSS"
    assert clock.parse(clock.formatted(moment, format), format) == moment


def test_dates_of_other_forms() -> None:
    """Zones, days of the year, twelve hours, text in brackets."""
    assert clock.parse("2024-02-03 11:05 pm +02:00", "YYYY-MM-DD hh:mm a ZZ").isoformat() == "2024-02-03T23:05:00+02:00"
    assert clock.parse("2024 060", "YYYY DDDD").date().isoformat() == "2024-02-29"
    assert clock.formatted(datetime.date(2024, 2, 3), "[on] Do MMM YY, W, DDD") == "on 3rd Feb 24, 2024-W05-6, 34"
    with pytest.raises(ValueError, match=r"^is not a date in the format `YYYY`: `x`$"):
        clock.parse("x", "YYYY")
    with pytest.raises(ValueError, match=r"^time zone `Mars/Base` is not known$"):
        clock.zone_of("Mars/Base")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_json_is_what_the_standard_library_makes_of_it(value: object) -> None:
    """Both ways, and with white space around."""
    assert json.loads(jsons.dumps(value)) == value
    assert jsons.loads(json.dumps(value)) == value
    assert jsons.loads(f" {json.dumps(value, indent=1)}\n") == value


@given(json_values)
def test_bunchify_and_back_changes_nothing(value: object) -> None:
    """Equal in value, and plain dicts afterwards."""
    made = bunchify(value)
    assert made == value
    assert unbunchify(made) == value
    assert json.dumps(unbunchify(made)) == json.dumps(value)


def test_a_bunch_is_a_dict_by_attribute() -> None:
    """Read, write, delete, copy, pickle."""
    made = bunchify({"a": {"b": [1, {"c": 2}]}})
    assert made.a.b[1].c == 2
    made.a.d = 3
    assert made["a"]["d"] == 3
    del made.a.d
    with pytest.raises(AttributeError, match=r"^d$"):
        made.a.d  # noqa: B018
    assert copy.deepcopy(made) == made and isinstance(copy.deepcopy(made).a, Bunch)
    assert pickle.loads(pickle.dumps(made)) == made
    assert repr(Bunch(a=1)) == "Bunch(a=1)"


OLD_IMPORTS = """
from zato.server.service import Service
from zato.server.service import AsIs, Bool, CSV, Date, DateTime, Decimal, Dict, DictList, Float, Int, List, \\
     Opaque, Text, UTC, UUID, Model, ModelCtx, dataclass, RESTAdapter, PubSubHook, WSXHook
from zato.server.service import Boolean, Integer, ForceType, ListOfDicts, Nested, Unicode
from zato.common import ZatoException
from zato.common.api import ZatoException
from zato.common.exception import ZatoException, BadRequest, Inactive, TimeoutException
from zato.common.typing_ import any_, strdict, list_, optional, anydict, strlist, intnone, callable_, cast_
from zato.server.connection.http_soap import BadRequest, NotFound, Forbidden, Unauthorized, TooManyRequests
from zato.common.util import grouper
from zato.common.util.api import grouper, asbool, new_cid
from zato.common.json_internal import dumps, loads
from zato.common.marshal_.api import Model
from bunch import Bunch, bunchify
from arint import Service as Same
assert Same is Service
"""


def test_old_imports_work() -> None:
    """1.1 of the interface, each line of it."""
    for line in OLD_IMPORTS.replace("\\\n", "").strip().splitlines():
        exec(line, {} if line.startswith("from") else {"Same": 1, "Service": 1})


def test_services_can_be_made_outside_of_a_worker() -> None:
    """For users' own unit tests; what needs the core says so."""
    from arint import Service, ZatoException

    class Mine(Service):
        def handle(self) -> None:
            self.out.rest["CRM"]

    with pytest.raises(ZatoException, match=r"^this needs the core, and the service does not run in a worker$"):
        Mine().handle()


def test_every_public_name_exists() -> None:
    """`from arint import *`."""
    arint = importlib.import_module("arint")
    for name in arint.__all__:
        assert getattr(arint, name) is not None
    with pytest.raises(AttributeError, match=r"^module `arint` has no attribute `Nothing`$"):
        arint.Nothing  # noqa: B018
