"""Updates as an admin makes them, and what became of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.api import ApiError
from harness.box import Box
from harness.waiting import wait_for

#: An installation of a bundle on a slow machine.
INSTALL_SECONDS = 300
#: From the restart after an installation to being confirmed, or to being back in the old slot.
VERDICT_SECONDS = 600


def install(box: Box, bundle: Path | None = None, *, url: str | None = None, reboot: bool = True,
            allow_downgrade: bool = False) -> list[dict[str, Any]]:
    """Uploads and installs a bundle; gives every state of the installation that was seen, the last one first."""
    if bundle is not None:
        box.api.upload(bundle)
    request: dict[str, Any] = {"reboot": False, "allow_downgrade": allow_downgrade}
    if url:
        request["url"] = url
    box.api.call("POST", "/v1/system/update/install", request, timeout=120)
    seen: list[dict[str, Any]] = []

    def ended() -> bool:
        state = box.api.get("/v1/system/update")["install"]
        if state and (not seen or seen[0] != state):
            seen.insert(0, state)
        return bool(state) and state["state"] != "running"

    wait_for(f"`{box.name}` ends the installation", ended, INSTALL_SECONDS, 0.3)
    if reboot and seen[0]["state"] == "installed":
        box.mark_serial()
        box.api.call("POST", "/v1/system/power", {"action": "reboot"})
    return seen


def status(box: Box) -> dict[str, Any]:
    """`GET /v1/system/status`, once the operating system unit is there: the admin API answers a little sooner."""
    return wait_for("the operating system unit answers", lambda: dict(box.api.get("/v1/system/status")), 30)


def verdict(box: Box, before: dict[str, Any], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Waits for a later start that is as wanted."""
    last: dict[str, Any] = {}

    def look() -> dict[str, Any] | None:
        nonlocal last
        try:
            # No waiting of its own here: a box that restarts is silent for as long as it takes.
            last = dict(box.api.get("/v1/system/status"))
        except ApiError as err:
            # A box that stops or starts says so.
            if err.status == 503:
                return None
            raise
        boot = last["boot"]
        return last if boot["boot_id"] != before["boot"]["boot_id"] and wanted(boot) else None

    try:
        return wait_for(f"`{box.name}` gives its verdict", look, VERDICT_SECONDS, 1)
    except AssertionError as err:
        raise box.complaint(AssertionError(f"{err}; its last status was {last.get('boot')}")) from None


def confirmed_in(box: Box, before: dict[str, Any], slot: str) -> dict[str, Any]:
    """Waits until the box runs in that slot and has confirmed it."""
    return verdict(box, before, lambda boot: boot["slot"] == slot and boot["confirmed"])


def fallen_back(box: Box, before: dict[str, Any], slot: str = "a") -> str:
    """Waits until the box is back in its old slot; gives the reason it tells."""
    after = verdict(box, before, lambda boot: boot["slot"] == slot and bool(boot["fell_back"]))
    view = box.api.get("/v1/system/blackbox")
    assert view["why"] == after["boot"]["fell_back"], "one reason, told the same everywhere"
    assert view["why"], "a box that fell back says why"
    return str(view["why"])
