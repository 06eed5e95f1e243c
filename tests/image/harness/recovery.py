"""A box that runs its recovery system, as an admin finds it."""

from harness.api import CODE
from harness.box import BOOT_SECONDS, Box
from harness.waiting import Impatient, wait_for


def in_recovery(box: Box) -> str:
    """Waits until the box says at its door that it runs the recovery system; gives the reason it tells."""
    # The recovery system makes a certificate of its own.
    box.api.pinned = box.api.token = None
    try:
        return wait_for("the recovery system says why it runs",
                        lambda: box.api.request("GET", "/v1/claim", timeout=10).json().get("recovery"), BOOT_SECONDS)
    except Impatient as err:
        raise box.complaint(err) from None


def log_in(box: Box) -> None:
    """Logs in with the code on the serial console."""
    try:
        code = wait_for("the recovery system's code on the serial console",
                        lambda: CODE.findall(box.serial()), BOOT_SECONDS)[-1]
    except Impatient as err:
        raise box.complaint(err) from None
    box.api.token = box.api.call("POST", "/v1/login", {"user": "recovery", "password": code})["token"]


def wait_new(box: Box) -> None:
    """Waits until the box that was reset in recovery answers as a new one; until then the old one may, with its own key."""
    box.api.token = None

    def is_new() -> bool:
        box.api.pinned = None
        claim = box.api.request("GET", "/v1/claim", timeout=10).json()
        return claim.get("recovery") is None and claim["claimed"] is False

    try:
        wait_for("the box is new", is_new, BOOT_SECONDS)
    except Impatient as err:
        raise box.complaint(err) from None
