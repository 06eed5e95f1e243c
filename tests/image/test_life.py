"""What an admin does to a box over the years: its network, a support session, the end of its old life."""

import re

from harness import images
from harness.api import CODE
from harness.box import BOOT_SECONDS, Box
from harness.updates import status
from harness.waiting import Impatient, wait_for


def test_a_network_change_that_cuts_the_admin_off_rolls_back_by_itself_and_says_so(box: Box):
    before = box.api.get("/v1/system/network")["confirmed"]
    lost = {"interfaces": [{"name": "en*", "addresses": ["192.0.2.77/24"]}]}
    try:
        box.api.put("Network", "default", lost)
    except OSError:
        pass  # The answer may be lost with the address.
    wait_for("the box cannot be reached", lambda: not reachable(box), 60)
    wait_for("the box is back", lambda: reachable(box), 240)
    now = wait_for("the trial is over", lambda: ended(box), 120)
    assert now["confirmed"] == before
    assert now["last_rollback"], "a box that rolled back says why"
    print(now["last_rollback"])

    # What works and is confirmed stays, over a power cut too.
    kept = {"interfaces": [{"name": "en*", "dhcp": True, "addresses": ["192.0.2.78/24"]}]}
    box.api.put("Network", "default", kept)
    wait_for("the change is on trial", lambda: box.api.get("/v1/system/network")["trial"], 60)
    box.api.call("POST", "/v1/system/network/confirm", {})
    assert box.api.get("/v1/system/network")["trial"] is None
    box.restart()
    box.wait_answering()
    links = wait_for("the address is there", lambda: with_address(box, "192.0.2.78/24"), 90)
    assert links


def reachable(box: Box) -> bool:
    """Whether it answers at once."""
    try:
        return box.api.request("GET", "/v1/claim", timeout=3).status == 200
    except OSError:
        return False


def ended(box: Box) -> dict[str, object] | None:
    """The network once nothing is on trial."""
    now = box.api.get("/v1/system/network")
    return now if now["trial"] is None else None


def with_address(box: Box, address: str) -> bool:
    """Whether a link has it."""
    return any(address in link["addresses"] for link in box.api.get("/v1/system/network")["links"])


def test_a_factory_reset_makes_another_box_of_it_and_the_black_box_keeps_the_proof(box: Box):
    old = status(box)
    refused = box.api.request("POST", "/v1/system/factory-reset", {"hostname": "somebody-else"})
    assert 400 <= refused.status < 500
    box.mark_serial()
    answer = box.api.call("POST", "/v1/system/factory-reset", {"hostname": old["hostname"]})
    assert answer["fingerprint"] == old["fingerprint"]
    box.api.pinned = box.api.token = None
    try:
        code = wait_for("a new code on the serial console", lambda: CODE.findall(box.serial()), BOOT_SECONDS)[-1]
    except Impatient as err:
        raise box.complaint(err) from None
    box.wait_answering()
    info = box.api.get("/v1/claim")
    assert info["claimed"] is False and info["fingerprint"] != old["fingerprint"]
    box.api.claim(code)
    new = status(box)
    assert new["fingerprint"] != old["fingerprint"] and new["hostname"] != old["hostname"]
    assert new["version"] == images.VERSION_A
    assert box.api.request("GET", "/v1/objects/Channel/image-echo").status == 404
    entries = box.api.get("/v1/system/blackbox")["entries"]
    proof = next(entry for entry in entries if entry["event"] == "factory_reset")
    assert old["fingerprint"] in proof["text"], proof


def test_a_login_exists_only_within_a_support_session(box: Box):
    box.mark_serial()
    box.type("\n\n")
    try:
        wait_for("a login on the serial console", lambda: re.search(r"login:", box.serial()), 10)
        raise AssertionError("there is a login without a support session")
    except Impatient:
        pass
    session = box.api.call("POST", "/v1/system/support", {"minutes": 5})
    box.type("\n")
    box.wait_serial("login:", 60)
    box.type(f"{session['user']}\n")
    box.wait_serial("assword:", 60)
    box.type(f"{session['password']}\n")
    wait_for("a prompt", lambda: box.serial().rstrip()[-1:] in ("$", "#", ">"), 60)
    box.api.call("DELETE", "/v1/system/support")
    box.mark_serial()

    def is_closed() -> bool:
        box.type("echo still-$((40 + 2))\n")
        return "still-42" not in box.serial()[-200:]

    wait_for("the session is over", is_closed, 60, 2)
    audit = box.api.get("/v1/audit")["entries"]
    assert any(entry["action"] == "support_open" for entry in audit)


def test_a_support_bundle_holds_status_and_journal_and_no_secret(box: Box):
    answer = box.api.request("GET", "/v1/system/support/bundle", timeout=180)
    assert answer.status == 200, answer.body[:500]
    assert len(answer.body) > 2000
    assert (box.api.token or "-").encode() not in answer.body
