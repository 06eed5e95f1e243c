"""What an admin does to a box over the years: its network, a support session, the end of its old life."""

import io
import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from harness import images
from harness.api import CODE, PASSWORD
from harness.box import BOOT_SECONDS, Box
from harness.updates import status
from harness.waiting import Impatient, wait_for

#: Stands in an object of the box's old life.
MARKER = "marked-for-destruction-51d0"
#: A service that writes a secret into its log.
LEAKY = """
from zato.server.service import Service

class Leaky(Service):
    name = 'image.leaky'

    def handle(self):
        self.logger.info('leaky says SECRET')
        self.response.payload = {}
"""


def test_a_network_change_that_cuts_the_admin_off_rolls_back_by_itself_and_says_so(box: Box):
    network = box.api.get("/v1/system/network")
    before = network["confirmed"]
    name = next(link["name"] for link in network["links"] if link["name"].startswith("en"))
    lost = {"interfaces": [{"name": name, "addresses": ["192.0.2.77/24"]}]}
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
    kept = {"interfaces": [{"name": name, "dhcp": True, "addresses": ["192.0.2.78/24"]}]}
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


def test_a_factory_reset_makes_another_box_of_it_and_the_black_box_keeps_the_proof(box: Box, tmp_path: Path):
    old = status(box)
    plant(box)
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
    assert_proof(box, old)
    box.power_cut()
    assert_destroyed(box, tmp_path)


def assert_proof(box: Box, old: dict[str, Any]) -> None:
    """The black box keeps whose key was destroyed, by whom, and that the reset came to its end."""
    entries = box.api.get("/v1/system/blackbox")["entries"]
    proof = next(entry for entry in entries if entry["event"] == "factory_reset")
    assert old["fingerprint"] in proof["text"] and "admin" in proof["text"], proof
    assert any(entry["text"].startswith("factory reset finished") for entry in entries), entries


def assert_destroyed(box: Box, work: Path) -> None:
    """Nothing of the old life is on the disk of a box that is off: looked for on the bare disk, not in a file system."""
    raw = box.read_disk(work / "disk.img")
    found = subprocess.run(["grep", "--binary-files=text", "--count", "--fixed-strings", MARKER, raw],
                           capture_output=True, text=True, check=False)
    raw.unlink()
    assert found.stdout.strip() == "0", f"what was stored before the reset is still on the disk: {found}"


def plant(box: Box) -> None:
    """Something that is found again wherever it lies."""
    box.api.put("Channel", "marked", {"url_path": f"/{MARKER}", "service": "image.echo", "data_format": "json"})


def test_a_reset_that_the_power_fails_in_is_finished_at_the_next_start(box: Box, tmp_path: Path):
    old = status(box)
    plant(box)
    box.mark_serial()
    box.api.call("POST", "/v1/system/factory-reset", {"hostname": old["hostname"]})
    # The answer is out, the key is gone, and nothing else has happened yet.
    box.power_cut()
    box.api.pinned = box.api.token = None
    box.start()
    # The old state is being overwritten: the disk's file grows.
    begun = box.disk.stat().st_blocks
    wait_for("the reset writes", lambda: box.disk.stat().st_blocks - begun > (64 << 20) // 512, BOOT_SECONDS, 0.1)
    box.power_cut()
    box.start()
    box.api.pinned = None
    try:
        code = wait_for("a new code on the serial console", lambda: CODE.findall(box.serial()), BOOT_SECONDS)[-1]
    except Impatient as err:
        raise box.complaint(err) from None
    box.wait_answering()
    assert box.api.get("/v1/claim")["claimed"] is False
    box.api.claim(code)
    new = status(box)
    assert new["fingerprint"] != old["fingerprint"] and new["hostname"] != old["hostname"]
    assert_proof(box, old)
    box.power_cut()
    assert_destroyed(box, tmp_path)


def test_a_login_exists_only_within_a_support_session_which_ends_by_hand_and_by_time(box: Box):
    box.mark_serial()
    box.type("\n\n")
    try:
        wait_for("a login on the serial console", lambda: re.search(r"login:", box.serial()), 3)
        raise AssertionError("there is a login without a support session")
    except Impatient:
        pass
    units = {unit["name"]: unit["active"] for unit in box.api.get("/v1/system/units")}
    assert not [name for name, active in units.items() if "getty" in name and active == "active"], units

    first = opened(box, 5)
    log_in(box, first)
    box.api.call("DELETE", "/v1/system/support")
    wait_for("the session is over", lambda: is_closed(box), 60, 2)
    assert box.api.get("/v1/system/support") is None

    # The next one has another password, and ends by itself.
    second = opened(box, 1)
    assert second["password"] != first["password"]
    log_in(box, second)
    wait_for("the session's time is over", lambda: box.api.get("/v1/system/support") is None, 120, 2)
    wait_for("whoever was logged in is out", lambda: is_closed(box), 60, 2)

    audit = [entry["action"] for entry in box.api.get("/v1/audit")["entries"]]
    assert audit.count("support_open") == 2 and audit.count("support_close") == 1, audit
    notes = "\n".join(entry["text"] for entry in box.api.get("/v1/system/blackbox")["entries"])
    for text in ("a support session of 5 minutes was opened", "the support session was closed: an admin closed it",
                 "a support session of 1 minutes was opened", "the support session was closed: its time is over"):
        assert text in notes, notes
    assert first["password"] not in notes


def opened(box: Box, minutes: int) -> dict[str, str]:
    """A support session, with its password."""
    box.mark_serial()
    return dict(box.api.call("POST", "/v1/system/support", {"minutes": minutes}))


def log_in(box: Box, session: dict[str, str]) -> None:
    """Logs in on the serial console."""
    box.type("\n")
    box.wait_serial("login:", 60)
    box.type(f"{session['user']}\n")
    box.wait_serial("assword:", 60)
    box.type(f"{session['password']}\n")
    wait_for("a prompt", lambda: box.serial().rstrip()[-1:] in ("$", "#", ">"), 60)
    box.mark_serial()


def is_closed(box: Box) -> bool:
    """Whether nobody carries out what is typed."""
    box.mark_serial()
    box.type("echo still-$((40 + 2))\n")
    return "still-42" not in box.serial()


def test_a_support_bundle_holds_what_a_stranger_needs_and_none_of_the_secrets_that_were_planted(box: Box):
    # A service that logs what it should not, as services do.
    secret = "planted-Hunter2-7f3a"
    box.api.put("Security", "planted", {"type": "basic", "username": "crm", "password": {"value": secret}})
    box.api.deploy("image_leaky.py", LEAKY.replace("SECRET", secret))
    box.api.put("Channel", "leaky", {"url_path": "/leaky", "service": "image.leaky", "data_format": "json"})
    wait_for("the service answers", lambda: box.api.channel("/leaky", b"{}").status == 200, 60)
    answer = box.api.request("GET", "/v1/system/support/bundle", timeout=180)
    assert answer.status == 200, answer.body[:500]
    with tarfile.open(fileobj=io.BytesIO(answer.body), mode="r:gz") as archive:
        files = {member.name.split("/", 1)[1]: archive.extractfile(member).read()  # type: ignore[union-attr]
                 for member in archive.getmembers() if member.isfile()}
    expected = {"status.json", "network.json", "identity.json", "units.json", "blackbox.json", "os-release", "cmdline",
                "boot.json", "meminfo", "mounts", "partitions", "journal.txt", "journal-last-boot.txt", "kernel.txt"}
    assert expected <= set(files), sorted(files)
    assert json.loads(files["status.json"])["version"] == images.VERSION_A
    assert b"leaky says (secret removed)" in files["journal.txt"], "what a service logs is in it, without the secret"
    everything = b"\n".join(files.values())
    for name, text in (("a service's secret", secret), ("the admin's password", PASSWORD),
                       ("the admin's token", box.api.token or "-")):
        assert text.encode() not in everything, name
    for name, pattern in (("a claim code", rb"[Cc]ode:?\s+[2-9A-HJKMNP-TV-Z]{4}-[2-9A-HJKMNP-TV-Z]{4}\b"),
                          ("a private key", rb"PRIVATE KEY"), ("a password's hash", rb"\$(argon2id|6|y)\$")):
        found = re.search(pattern, everything)
        assert not found, f"{name} is in the bundle: {found}"
