"""What every service uses: names, input, output, request, response, hooks (ranks 1 to 16, 19 to 22, 24, 27 to 34)."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest
from harness import Core


def described(core: Core, name: str) -> dict[str, Any]:
    assert core.ready is not None
    return next(item for item in core.ready["services"] if item["name"] == name)


# Names and READY


def test_ready_tells_of_each_service_what_the_core_has_to_know(core: Core) -> None:
    """Name, module, class, line, documentation, schemas."""
    about = described(core, "photos.get-photo")
    assert about["module"] == "photos"
    assert about["class"] == "GetPhoto"
    assert about["line"] == 12
    assert about["summary"] == "Returns one photo by its ID."
    assert about["doc"] == "Returns one photo by its ID.\n\nLooked up in the catalogue."
    assert about["is_async"] is False
    assert about["verbs"] == []
    assert about["input"] == {
        "type": "object",
        "properties": {
            "photo_id": {"type": "integer"},
            "size": {"type": "string"},
            "is_thumbnail": {"type": "boolean"},
        },
        "required": ["photo_id"],
    }
    assert list(about["output"]["properties"]) == ["response"]
    assert core.ready is not None and core.ready["pid"] == core.process.pid


def test_acronyms_in_class_names_stay_one_word(core: Core) -> None:
    """GetHTTPData."""
    assert core.call("photos.get-http-data").json() == {"name": "photos.get-http-data", "impl": "photos.GetHTTPData"}


def test_the_name_attribute_wins(core: Core) -> None:
    """Rank 14."""
    assert core.call("photos.find.by-user", {"user_id": "u7"}).json() == {"user_id": "u7", "page_size": 10}


def test_verbs_are_told_to_the_core(core: Core) -> None:
    """Rank 34."""
    assert described(core, "legacy.verbs")["verbs"] == ["GET", "POST"]


def test_a_service_that_does_not_want_to_be_deployed_is_not(core: Core) -> None:
    """before_add_to_store; the hooks of others ran and logged."""
    assert core.ready is not None
    assert not any(item["name"] == "legacy.not-deployed" for item in core.ready["services"])
    core.log_of("before_add_to_store ran")
    core.log_of("after_add_to_store ran")


def test_an_unknown_service_is_answered_and_not_silent(core: Core) -> None:
    """The core should not send such a call; if it does, it hears so."""
    result = core.call("no.such-service")
    assert result.status == 404
    assert result.error["message"] == "no service `no.such-service` in this worker"


# Declared input and output


def test_declared_input_reaches_the_service_and_output_is_wrapped(core: Core) -> None:
    """Ranks 5, 6, 8, 10, 16, 19, and 3 and 4 by the log line."""
    result = core.call("photos.get-photo", {"photo_id": "7", "size": "big"}, cid="c" * 24)
    assert result.status == 200
    assert result.content_type is None
    assert result.json() == {"response": {"photo_id": 7, "title": "Harbour", "tags": ["sea", "boats"], "size": "big"}}
    line = core.log_of("Looking up photo 7 for " + "c" * 24)
    assert (line["level"], line["logger"], line["cid"]) == ("info", "photos.get-photo", "c" * 24)
    assert line["id"] != 0


def test_a_missing_optional_element_is_an_empty_text(core: Core) -> None:
    """1.2."""
    assert core.call("photos.get-photo", {"photo_id": 8}).json()["response"]["size"] == ""


def test_input_comes_from_body_path_and_query_alike(core: Core) -> None:
    """Channel parameters are merged, and win over the body."""
    result = core.call(
        "photos.get-photo", {"photo_id": 7, "size": "body"}, params={"photo_id": "8"}, query="size=query&x=1"
    )
    assert result.json()["response"]["photo_id"] == 8
    assert result.json()["response"]["size"] == "query"


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"params_pri": "msg-over-channel-params"}, "body"),
        ({"merge_url_params_req": False}, "body"),
        ({"url_params_pri": "path-over-qs"}, "path"),
        ({"url_params_pri": "qs-over-path"}, "query"),
    ],
)
def test_which_source_of_input_wins_is_the_channels_choice(core: Core, options: dict[str, Any], size: str) -> None:
    """params_pri, merge_url_params_req, url_params_pri."""
    body = {"photo_id": 7, "size": "body"}
    result = core.call("photos.get-photo", body, params={"size": "path"}, query="size=query", **options)
    assert result.json()["response"]["size"] == size


def test_a_missing_required_element_is_a_bad_request_that_names_it(core: Core) -> None:
    """400 before `handle` runs."""
    result = core.call("photos.get-photo", {"size": "big"})
    assert (result.status, result.details) == (400, "input element `photo_id` is missing")


def test_an_element_of_the_wrong_type_is_a_bad_request_that_names_it(core: Core) -> None:
    """The type follows from the name here."""
    result = core.call("photos.get-photo", {"photo_id": "abc"})
    assert (result.status, result.details) == (400, "input element `photo_id` is not a whole number")


def test_types_follow_from_names(core: Core) -> None:
    """Bool by prefix, Int by name and suffix, text otherwise."""
    body = {
        "id": "1",
        "user_id": "2",
        "item_count": 3,
        "is_active": "true",
        "has_errors": False,
        "name": 5,
        "password": "p",
    }
    assert core.call("billing.by-name", body).json()["kinds"] == {
        "id": ["int", 1],
        "user_id": ["int", 2],
        "item_count": ["int", 3],
        "is_active": ["bool", True],
        "has_errors": ["bool", False],
        "name": ["str", "5"],
        "password": ["str", "p"],
        "max_size": ["str", ""],
        "note": ["str", ""],
    }


TYPES = {
    "paid": "yes",
    "codes": "a, b",
    "due": "2024-02-03",
    "sent": "2024-02-03T04:05:06",
    "amount": "12.50",
    "rate": "1.5",
    "rows": "7",
    "ref": "00000000-0000-0000-0000-000000000005",
    "at": "2024-02-03T04:05:06+02:00",
    "extra": {"any": [1]},
    "customer": {"name": "Ann", "age": "30", "dropped": 1},
    "lines": [{"sku": "x", "count": "2"}],
}


def test_declared_types_are_converted_both_ways(core: Core) -> None:
    """Rank 12's elements."""
    out = core.call("billing.types", TYPES).json()
    assert out["kinds"] == {
        "paid": "bool",
        "codes": "list",
        "due": "date",
        "sent": "datetime",
        "amount": "Decimal",
        "rate": "float",
        "rows": "int",
        "ref": "UUID",
        "at": "datetime",
        "extra": "dict",
        "customer": "dict",
        "lines": "list",
    }
    assert out["codes"] == "a,b"
    assert out["due"] == "03.02.2024"
    assert out["amount"] == "12.50"
    assert out["ref"] == TYPES["ref"]
    assert out["at"] == "2024-02-03T02:05:06Z"
    assert out["customer"] == {"name": "Ann", "age": 30}
    assert out["lines"] == [{"sku": "x", "count": 2}]


@pytest.mark.parametrize(
    ("element", "value", "details"),
    [
        ("paid", "maybe", "input element `paid` is not a truth value"),
        ("due", "soon", "input element `due` is not a date and time in ISO 8601: `soon`"),
        ("amount", "x", "input element `amount` is not a decimal number"),
        ("rate", "x", "input element `rate` is not a number"),
        ("ref", "x", "input element `ref` is not a UUID"),
        ("customer", "x", "input element `customer` is not an object"),
        ("customer", {}, "input element `customer/name` is missing"),
        ("lines", [{"sku": 1, "count": "x"}], "input element `lines/0/count` is not a whole number"),
    ],
)
def test_a_value_that_does_not_fit_is_named_by_its_path(core: Core, element: str, value: Any, details: str) -> None:
    """Nested elements included."""
    result = core.call("billing.types", {**TYPES, element: value})
    assert (result.status, result.details) == (400, details)


@pytest.mark.parametrize(
    ("service", "answer"),
    [
        ("billing.wrapped", {"response": {"status": "paid"}}),
        ("billing.not-wrapped", {"status": "paid"}),
        ("billing.own-wrapper", {"billing_response": {"status": "paid"}}),
        ("billing.class-level", {"status": "paid"}),
    ],
)
def test_the_wrapper_rule(core: Core, service: str, answer: Any) -> None:
    """SimpleIO wraps unless told otherwise, class-level declarations never do."""
    assert core.call(service).json() == answer


def test_repeated_output_is_a_list(core: Core) -> None:
    """Rank 21."""
    rows = [{"photo_id": 7, "title": "Harbour"}, {"photo_id": 8, "title": "Mountain"}]
    assert core.call("photos.list-photos").json() == {"response": rows}


def test_defaults_stand_in_for_missing_elements(core: Core) -> None:
    """default_input_value and default_output_value."""
    out = core.call("billing.defaults", {"discount": "5"}).json()
    assert out == {"response": {"currency": "none", "discount": "-", "note": "-"}}


def test_empty_elements_can_be_left_out(core: Core) -> None:
    """skip_empty_keys, force_empty_keys, skip_empty_request_keys."""
    assert core.call("billing.skip-empty").json() == {"invoice": "F-1", "remark": ""}
    assert core.call("billing.skip-empty-request", {"note": "x"}).json() == {"keys": ["note"]}


def test_a_missing_required_output_element_is_an_error(core: Core) -> None:
    """The service's fault, so 500."""
    result = core.call("billing.missing-output")
    assert (result.status, result.details) == (500, ["output element `total` is missing"])


def test_require_any_and_deepcopy(core: Core) -> None:
    """1.4."""
    assert core.call("billing.require-any", {"phone": "1"}).json() == {"copy": {"email": "", "phone": "1"}}
    result = core.call("billing.require-any", {})
    assert result.details == ["at least one of `email`, `phone` is needed"]


# Models

CUSTOMER = {"customer_id": "5", "name": " Ann ", "addresses": [{"street": "a", "city": "b"}]}


def test_models_are_input_and_output(core: Core) -> None:
    """Nested, with optional elements, defaults and after_created."""
    assert core.call("customers.save-customer", CUSTOMER).json() == {
        "customer": {
            "customer_id": 5,
            "name": "Ann",
            "addresses": [{"street": "a", "city": "b", "zip_code": None}],
            "main": None,
            "level": "basic",
            "extra": None,
        },
        "cities": ["b"],
        "meta": {"level": "basic"},
    }


def test_a_list_of_models_is_input(core: Core) -> None:
    """`input = list_[Customer]`."""
    assert core.call("customers.import-customers", [CUSTOMER, CUSTOMER]).json() == ["Ann", "Ann"]


@pytest.mark.parametrize(
    ("change", "details"),
    [
        ({"customer_id": "x"}, "element `/customer_id` is not of type `int`"),
        ({"addresses": [{"street": "a"}]}, "element `/addresses[0]/city` is missing"),
        ({"addresses": {}}, "element `/addresses` is not a list"),
        ({"main": "x"}, "element `/main` is not an object"),
        ({"name": None}, "element `/name` is null"),
    ],
)
def test_input_that_does_not_fit_a_model_is_refused_with_the_path(core: Core, change: Any, details: str) -> None:
    """ModelValidationError is 400 and tells its message."""
    result = core.call("customers.save-customer", {**CUSTOMER, **change})
    assert (result.status, result.details) == (400, details)
    assert result.error["type"] == "ModelValidationError"


def test_a_model_passes_through_invoke_untouched(core: Core) -> None:
    """Within a worker it is the same object."""
    assert core.call("customers.call-save").json() == {"is_same": True, "kind": "CustomerResponse"}


# Requests


def test_the_raw_request_is_text_and_can_be_decoded(core: Core) -> None:
    """Rank 13; both habits of existing services."""
    out = core.call("legacy.raw", '{"a": 1}').json()
    assert out == {"raw": '{"a": 1}', "kind": ["str"], "is_text_alias": True, "payload": {"a": 1}}
    assert core.call("legacy.raw-decode", '{"a": 1}').text == '{"A": 1}'


def test_a_body_that_is_not_text_is_bytes(core: Core) -> None:
    """Without a data format nothing is parsed."""
    out = core.call("legacy.raw", b"\xff\x00", data_format="").json()
    assert out == {"raw": [255, 0], "kind": ["bytes"], "is_text_alias": True, "payload": "bytes"}


@pytest.mark.parametrize(
    ("body", "details"),
    [
        (b"{", "the request body is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b'{"a": 1} x', "the request body is not JSON: Extra data: line 1 column 10 (char 9)"),
        (b"\xff", "the request body is not UTF-8 at byte 0"),
    ],
)
def test_a_body_that_is_not_json_is_refused_before_the_service_runs(core: Core, body: bytes, details: str) -> None:
    """Also for a service that never looks at it."""
    result = core.call("orders.silent", body)
    assert (result.status, result.details) == (400, details)


@pytest.mark.parametrize("depth", [5_000, 100_000])
@pytest.mark.parametrize("pair", ["[]", ('{"a":', "}")])
def test_a_deeply_nested_body_is_refused_or_read_and_never_a_crash(core: Core, depth: int, pair: Any) -> None:
    """How deep is too deep depends on the Python; the worker survives either way."""
    result = core.call("orders.silent", pair[0] * depth + ("1" if pair != "[]" else "") + pair[1] * depth)
    assert result.status == 200 or result.details == "the request body is nested too deeply"
    assert depth < 100_000 or result.status == 400
    core.ping(depth)


def test_bunchified_is_a_deep_copy(core: Core) -> None:
    """Rank 15."""
    out = core.call("legacy.bunchified", {"customer": {"name": "Ann"}, "items_": [{"a": 1}]}).json()
    assert out == {"name": "Ann", "kind": "Bunch"}


def test_the_http_side_of_a_request(core: Core) -> None:
    """Ranks 33, 43 and 44."""
    out = core.call(
        "legacy.http",
        "b=3&b=4&c=",
        data_format="form",
        path="/legacy/7",
        query="a=1&a=2&e=",
        params={"id": "7"},
        headers=[
            ["content-type", "application/x-www-form-urlencoded"],
            ["user-agent", "tests/1.0"],
            ["x-request-no", "99"],
        ],
    ).json()
    form = {"b": ["3", "4"], "c": ""}
    assert out == {
        "method": "POST",
        "path": "/legacy/7",
        "GET": {"a": ["1", "2"], "e": ""},
        "POST": form,
        "params": {"id": "7"},
        "user_agent": "tests/1.0",
        "header": "99",
        "form": form,
        "channel": [12, "test.channel", "http-soap", "form", "crm-user", "basic_auth"],
        "wsgi": [
            "POST",
            "/legacy/7",
            "a=1&a=2&e=",
            "99",
            "192.0.2.7",
            "application/x-www-form-urlencoded",
            "b=3&b=4&c=",
        ],
        "input": {**form, "id": "7", "a": ["1", "2"], "e": ""},
        "channel_params": {"id": "7", "a": ["1", "2"], "e": ""},
    }


def test_handler_is_a_synonym_of_handle(core: Core) -> None:
    """The product's own manual names it so."""
    assert core.call("legacy.handler").json() == {"from": "handler"}


def test_the_http_method_chooses_the_verbs_handler(core: Core) -> None:
    """Rank 34."""
    assert core.call("legacy.verbs", method="GET", params={"id": "3"}).json() == {"verb": "GET", "id": "3"}
    posted = core.call("legacy.verbs", {"a": 1})
    assert (posted.status, posted.json()) == (201, {"verb": "POST", "body": {"a": 1}})


def test_a_verb_without_a_handler_is_405_with_an_empty_body(core: Core) -> None:
    """Also where there is a `handle` beside the verbs."""
    for service in ("legacy.verbs", "legacy.verbs-and-handle"):
        result = core.call(service, method="DELETE")
        assert (result.status, result.body) == (405, b"")


def test_channels_without_verbs_use_handle(core: Core) -> None:
    """The scheduler, for one; an invocation counts as HTTP without a method."""
    out = core.call("legacy.verbs-and-handle", channel="scheduler", data_format="")
    assert out.json() == {"by": "handle", "channel": "scheduler"}
    assert core.call("legacy.verbs-and-handle", channel="invoke", data_format="dict").status == 405


# Responses


def test_status_headers_and_content_type_go_out(core: Core) -> None:
    """Ranks 11, 20, 31."""
    result = core.call("legacy.headers")
    assert (result.status, result.content_type, result.text) == (202, "text/csv", "id,name\n1,Ann\n")
    assert result.headers == {"X-Rate-Left": "17", "Set-Cookie": ["a=1", "b=2"], "Content-Encoding": "identity"}


def test_headers_go_out_also_when_the_service_fails(core: Core) -> None:
    """1.8."""
    result = core.call("legacy.headers", {"fail": True})
    assert (result.status, result.details) == (500, ["after the headers"])
    assert result.headers["X-Rate-Left"] == "17"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("str", b"text"),
        ("bytes", b"\x00\xff"),
        ("dict", b'{"a":[1,null,true]}'),
        ("empty-dict", b"{}"),
        ("list", b"[1,2]"),
        ("empty-list", b""),
        ("tuple", b"[1,2]"),
        ("none", b""),
        ("int", b"5"),
        ("zero", b""),
        ("unset", b""),
        ("vivid", b'{"a":{"b":1}}'),
        ("appended-text", b"more"),
        ("to_dict", b'{"to":"dict"}'),
        ("to_json", b'{"to":"json"}'),
        ("unicode", '{"ż":"ó"}'.encode()),
        (
            "dates",
            b'{"at":"2024-02-03T04:05:06","on":"2024-02-03","money":"1.50",'
            b'"ref":"00000000-0000-0000-0000-000000000005","raw":"raw","set":[1]}',
        ),
    ],
)
def test_payloads_become_bytes(core: Core, kind: str, body: bytes) -> None:
    """1.5, whatever a service assigns."""
    result = core.call("legacy.payloads", {"kind": kind})
    assert (result.status, result.body) == (200, body)


def test_an_object_without_a_form_is_refused_with_its_type(core: Core) -> None:
    """The wording that existing services may look for."""
    result = core.call("legacy.payloads", {"kind": "plain"})
    assert result.status == 500
    assert result.details[0].startswith(
        "Cannot serialise value without SimpleIO output declaration: `legacy.payloads` set its payload to an object"
    )


# Hooks

ORDER = ["accept", "before_handle", "validate_input", "handle", "validate_output", "after_handle", "finalize_handle"]


def test_hooks_run_in_order(core: Core) -> None:
    """Ranks 28 and 32; 1.3."""
    assert core.call("legacy.hooks").json() == ORDER


def test_the_schedulers_hooks_run_around_the_others(core: Core) -> None:
    """1.3, steps 5 and 11."""
    result = core.call(
        "legacy.hooks", channel="scheduler", data_format="", environ={"job_type": "interval_based"}
    )
    assert result.json() == [
        "accept",
        "before_job",
        "before_interval_based_job",
        *ORDER[1:6],
        "after_job",
        "after_interval_based_job",
        "finalize_handle",
    ]


@pytest.mark.parametrize("hook", ["before_handle", "after_handle"])
def test_a_failing_hook_around_handle_is_only_logged(core: Core, hook: str) -> None:
    """1.3, steps 6 and 10."""
    assert core.call("legacy.hooks", {"fail": hook}).json() == ORDER
    assert "failed in " + hook in core.log_of(f"hook `{hook}` failed")["message"]


@pytest.mark.parametrize("hook", ["validate_input", "handle", "validate_output", "finalize_handle"])
def test_a_failing_validation_is_the_answer(core: Core, hook: str) -> None:
    """1.3, steps 7, 8, 9 and 12."""
    assert core.call("legacy.hooks", {"fail": hook}).details == ["failed in " + hook]


def test_a_request_that_is_not_accepted_is_400_and_empty(core: Core) -> None:
    """1.3, step 2."""
    result = core.call("legacy.hooks", {"refuse": True})
    assert (result.status, result.body, result.error) == (400, b"", None)


# Configuration and time


def test_user_configuration_is_a_tree_and_can_be_replaced(core: Core) -> None:
    """Rank 22 and CONFIG."""
    from arint import frames

    expected = {"url": "https://crm.example", "same": "https://crm.example", "missing": "default"}
    assert core.call("orders.settings").json() == expected
    replaced = {"user_config": {"crm": {"server": {"url": "new"}}}}
    core.send(frames.with_json(frames.CONFIG, 0, replaced))
    assert core.call("orders.settings").json()["url"] == "new"


def test_the_clock(core: Core) -> None:
    """Rank 30."""
    out = core.call("legacy.times").json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", out["now"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", out["today"])
    assert abs(datetime.datetime.fromisoformat(out["iso"]).timestamp() - datetime.datetime.now().timestamp()) < 60
    assert datetime.datetime.fromisoformat(out["isonow"]).utcoffset() in (
        datetime.timedelta(hours=1),
        datetime.timedelta(hours=2),
    )
    assert out["tz"] == "+09:00"
    days = [datetime.date.fromisoformat(day) for day in out["order"]]
    assert [(day - days[0]).days for day in days] == [0, 1, 2]
    assert out["reformat"] == "3.2.24 4:05 am, Saturday 3rd February at 1706933106"
    assert out["object"] is True
    assert out["day"] == "2024-02-29"


# What is not there


@pytest.mark.parametrize(
    "path",
    ["pubsub", "publish", "schedule", "email", "odb", "out.amqp", "outgoing.ldap", "out.sftp", "static_config"],
)
def test_what_this_release_lacks_says_so(core: Core, path: str) -> None:
    """Attribute access is enough."""
    said = core.call("legacy.absent", [path]).json()[path]
    assert said.startswith(f"`self.{path.replace('outgoing', 'out')}` is not in this release of ARINT")


def test_what_is_missing_names_what_to_use_instead(core: Core) -> None:
    """Where there is something."""
    assert core.call("legacy.absent", ["static_config", "server.odb"]).json() == {
        "static_config": "`self.static_config` is not in this release of ARINT; keep static files in a module of "
        "the deployment or use `self.user_config`; see the page `not-supported` of the integrator's guide",
        "server.odb": "`self.server.odb` is not in this release of ARINT; leave it out; "
        "see the page `not-supported` of the integrator's guide",
    }
