"""The deploy check: what is refused, with which sentence, file and line."""

from __future__ import annotations

from typing import Any

import pytest
from harness import Died

HEAD = "from zato.server.service import Service\n"
GOOD = HEAD + "class Get(Service):\n    def handle(self):\n        pass\n"


def refusal(deploy: Any, **sources: str) -> dict[str, Any]:
    core = deploy(**sources)
    assert core.failed is not None, f"it was deployed: {core.ready}"
    assert core.wait_exit() == 3
    failed: dict[str, Any] = core.failed
    return failed


@pytest.mark.parametrize(
    ("source", "reason", "line"),
    [
        (HEAD + "\nclass X(Service)\n    pass\n", "SyntaxError: expected ':'", 3),
        (HEAD + "import no_such_library\n", "ModuleNotFoundError: No module named 'no_such_library'", 2),
        (HEAD + "from json import nothing_here\n", "ImportError: cannot import name 'nothing_here' from 'json'", 2),
        ("def f():\n    return 1 / 0\n\nf()\n", "ZeroDivisionError: division by zero", 2),
        ("import sys\nsys.exit(4)\n", "module `shop` called sys.exit(4) on import", 2),
        (HEAD + "class X(Service):\n    pass\n", "class `X` in `shop.py` has no `handle` method", 2),
        (HEAD + "class X(Service):\n    name = 5\n    def handle(self): pass\n", "`name` of class `X` in `shop.py` is 5 and not text", 2),
        (
            HEAD + "class X(Service):\n    input = 5,\n    def handle(self): pass\n",
            "class `X` in `shop.py`: 5 is neither an element nor a name",
            2,
        ),
        (
            GOOD + "class Second(Service):\n    name = 'shop.get'\n    def handle(self): pass\n",
            "service name `shop.get` is used twice in `shop.py`, by class `Get` and by class `Second`",
            5,
        ),
        (
            HEAD + "class X(Service):\n    name = 'ARthing'\n    def handle(self): pass\n",
            "service name `ARthing` begins with `AR`, which is kept for the producer's own services",
            2,
        ),
        (
            HEAD + "class X(Service):\n    name = 'ArKvd.reader'\n    def handle(self): pass\n",
            "service name `ArKvd.reader` begins with `arkvd`, which is the name of a part of ARINT",
            2,
        ),
    ],
)
def test_a_module_that_cannot_work_is_refused(deploy: Any, source: str, reason: str, line: int) -> None:
    """Exit code 3, and one sentence that says why."""
    failed = refusal(deploy, shop=source)
    assert failed["reason"].startswith(reason)
    assert (failed["module"], failed["file"], failed["line"]) == ("shop", "shop.py", line)


def test_the_line_is_in_the_module_at_fault_when_another_imports_it(deploy: Any) -> None:
    """The helper's file, not the importer's."""
    failed = refusal(deploy, shop="import helper\n" + GOOD, helper="x = 1\ny = (\n")
    assert (failed["module"], failed["file"], failed["line"]) == ("shop", "helper.py", 2)
    assert "helper.py" in failed["traceback"]


def test_a_name_used_in_two_modules_is_refused_naming_both(deploy: Any) -> None:
    """Files and classes."""
    other = HEAD + "class Other(Service):\n    name = 'shop.get'\n    def handle(self): pass\n"
    failed = refusal(deploy, shop=GOOD, store=other)
    assert failed["reason"] == (
        "service name `shop.get` is used in `shop.py` by class `Get` and in `store.py` by class `Other`"
    )
    assert (failed["file"], failed["line"]) == ("store.py", 2)


def test_a_module_with_a_librarys_name_is_refused(deploy: Any) -> None:
    """It would take the library's place for everybody."""
    assert refusal(deploy, queue=GOOD)["reason"] == "module `queue` has the name of a Python library; rename its file"


def names(deploy: Any, **sources: str) -> list[str]:
    core = deploy(**sources)
    assert core.failed is None, core.failed
    return [service["name"] for service in core.ready["services"]]


def test_a_helper_module_without_services_is_fine(deploy: Any) -> None:
    """As is no module at all."""
    assert names(deploy, helper="x = 1\n") == []
    assert names(deploy) == []


def test_only_classes_of_the_module_itself_are_services(deploy: Any) -> None:
    """Imported ones belong to where they come from; a base with subclasses counts when it has `handle`."""
    shop = GOOD + "class Special(Get):\n    pass\nAlias = Get\n"
    assert names(deploy, shop=shop, store="from shop import Get, Special\n") == ["shop.get", "shop.special"]


def test_a_base_without_handle_is_no_service(deploy: Any) -> None:
    """Not even when its subclasses are in another module."""
    base = HEAD + "class Base(Service):\n    def helper(self): pass\n"
    shop = "from base import Base\nclass Get(Base):\n    def handle(self): pass\n"
    assert names(deploy, base=base, shop=shop) == ["shop.get"]


def test_a_subclass_does_not_inherit_the_name(deploy: Any) -> None:
    """Two services cannot have one name."""
    shop = HEAD + (
        "class A(Service):\n    name = 'shop.own'\n    def handle(self): pass\nclass B(A):\n    pass\n"
    )
    assert names(deploy, shop=shop) == ["shop.own", "shop.b"]


def test_names_that_only_look_like_the_producers_are_allowed(deploy: Any) -> None:
    """`art`, `arsrvx` and lower-case `ar` are users' words."""
    shop = HEAD + "".join(
        f"class C{number}(Service):\n    name = {name!r}\n    def handle(self): pass\n"
        for number, name in enumerate(["art.list", "arsrvx", "archive.get", "my.arsrv"])
    )
    assert names(deploy, shop=shop) == ["art.list", "arsrvx", "archive.get", "my.arsrv"]


def test_hook_classes_load_and_are_named_in_the_log(deploy: Any) -> None:
    """A PubSubHook of an existing module does not stop the others."""
    shop = GOOD + "from zato.server.service import PubSubHook\nclass Hook(PubSubHook):\n    def before_publish(self): pass\n"
    core = deploy(shop=shop)
    assert core.failed is None and [service["name"] for service in core.ready["services"]] == ["shop.get"]
    core.log_of("class `Hook` in `shop.py` is not deployed: its hooks are not in this release")


def test_a_process_that_ends_itself_on_import_just_ends(deploy: Any) -> None:
    """The core reports the exit code."""
    with pytest.raises(Died):
        deploy(shop="import os\nos._exit(9)\n")


def test_modules_in_packages_and_chosen_names(deploy: Any, tmp_path: Any) -> None:
    """`names` limits what a module provides."""
    folder = tmp_path / "tree"
    (folder / "crm").mkdir(parents=True)
    (folder / "crm" / "__init__.py").write_text("")
    (folder / "crm" / "people.py").write_text(GOOD + "class Put(Service):\n    def handle(self): pass\n")
    modules = [{"name": "crm.people", "file": "crm/people.py", "names": ["crm.people.put"]}]
    with start(folder, modules) as core:
        assert core.failed is None, core.failed
        assert core.ready is not None
        assert [service["name"] for service in core.ready["services"]] == ["crm.people.put"]
        assert core.call("crm.people.put").status == 200


def start(folder: Any, modules: list[dict[str, Any]]) -> Any:
    from arint import frames
    from harness import Core

    core = Core(folder, [], start=False)
    document = {"protocol": 1, "worker": "t", "slots": core.slots_path, "modules_dir": str(folder), "modules": modules}
    core.send(frames.with_json(frames.HELLO, 0, document))
    core.wait(lambda: core.ready is not None or core.failed is not None, "READY")
    return core


def test_a_service_warms_its_worker_up(deploy: Any) -> None:
    source = '''
from zato.server.service import Service

warm = []

class Warm(Service):
    name = 'shop.warm'
    input = 'needed'
    def warm_up_worker(self):
        warm.append(self.name)
    def handle(self):
        self.response.payload = {'warm': warm}

class WarmCoroutine(Service):
    name = 'shop.coroutine'
    async def warm_up_worker(self):
        warm.append(self.name)
    async def handle(self):
        pass

class Cold(Service):
    name = 'shop.cold'
    def handle(self):
        pass

class Broken(Service):
    name = 'shop.broken'
    def warm_up_worker(self):
        raise ValueError('no warmth')
    def handle(self):
        pass
'''
    core = deploy(shop=source)
    assert core.ready is not None, core.failed
    told = {service["name"]: service["warms_up"] for service in core.ready["services"]}
    assert told == {"shop.warm": True, "shop.coroutine": True, "shop.cold": False, "shop.broken": True}
    for name in ("shop.warm", "shop.coroutine"):
        answer = core.call(name, channel="warm-up", data_format="dict")
        assert (answer.status, answer.body) == (200, b""), answer
    broken = core.call("shop.broken", channel="warm-up", data_format="dict")
    assert broken.status == 500 and broken.error["message"] == "ValueError: no warmth"
    assert core.call("shop.warm", {"needed": "x"}).json() == {"warm": ["shop.warm", "shop.coroutine"]}


def test_a_coroutine_cannot_warm_up_a_service_that_is_none(deploy: Any) -> None:
    source = "from arint import Service\nclass A(Service):\n    async def warm_up_worker(self): pass\n    def handle(self): pass\n"
    core = deploy(shop=source)
    assert core.failed is not None
    assert core.failed["reason"] == (
        "class `A` in `shop.py`: `warm_up_worker` is `async def` and `handle` is not; make both the same"
    )
