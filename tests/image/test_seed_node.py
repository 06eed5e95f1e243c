"""Seed files against the real admin API of a node on this machine, on real media: every refusal in its words.

No box is started, so this is quick; how a box finds its seed is in test_seed.py.  Needs root, for mounting.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import images, seeds
from harness.api import PASSWORD
from harness.tools import run
from harness.waiting import wait_for

GOOD = f'id = "site-1"\n[admin]\nuser = "anna"\none_time_password = "{PASSWORD}"\n[system]\nhostname = "press-3"\n'


def arint() -> Path:
    """The executable under test."""
    if given := os.environ.get("ARINT_IMAGE_ARINT"):
        return Path(given)
    subprocess.run(["cargo", "build", "--quiet", "--package", "arint"], cwd=images.TOP, check=True)
    return Path(os.environ.get("CARGO_TARGET_DIR", images.TOP / "target")) / "debug/arint"


@dataclass
class Node:
    """A node of this machine that nobody has claimed, and the folders of its `arint os seed`."""

    folder: Path

    @property
    def runtime(self) -> Path:
        return self.folder / "node/run"

    def call(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
        """One call over the control socket."""
        connection = http.client.HTTPConnection("arwadm")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.runtime / "arwadm.sock"))
        try:
            headers = {"Content-Type": "application/json", "X-ARINT-Peer": self.peer()}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def peer(self) -> str:
        """What the units of this node show each other."""
        return (self.runtime / "peer.token").read_text().strip()

    def claim(self) -> dict[str, object]:
        """What a stranger may know."""
        return self.call("GET", "/v1/claim")[1]

    def seed(self, stick: Path, *, read_only: bool = False) -> None:
        """`arint os seed` with this stick plugged in."""
        with looped(stick, read_only) as device:
            link = self.folder / "disks/by-label" / seeds.LABEL
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(device)
            # In a mount name space of its own, as its unit is.
            run(["unshare", "--mount", arint(), "os", "seed", "--runtime-dir", self.runtime, "--state-dir",
                 self.folder / "state", "--key", self.folder / "seed.pub", "--disks", self.folder / "disks", "--esp",
                 self.folder / "esp", "--settle", "0"])


def medium(path: Path, **files: str | bytes) -> Path:
    """A stick with ext4, which every kernel has; `seed`, `sig`, `receipt` and `taken` are its files."""
    names = {"seed": seeds.FILE, "sig": f"{seeds.FILE}.sig", "receipt": seeds.RECEIPT, "taken": seeds.TAKEN}
    folder = path.with_suffix(".files")
    folder.mkdir()
    for kind, content in files.items():
        (folder / names[kind]).write_bytes(content if isinstance(content, bytes) else content.encode())
    with path.open("wb") as file:
        file.truncate(16 << 20)
    run(["mkfs.ext4", "-q", "-L", seeds.LABEL, "-d", folder, path])
    return path


def content(stick: Path) -> dict[str, str]:
    """The files on a stick."""
    place = stick.with_suffix(".mnt")
    place.mkdir(exist_ok=True)
    run(["mount", "-o", "loop,ro", stick, place])
    try:
        return {file.name: file.read_bytes().decode(errors="replace") for file in place.iterdir() if file.is_file()}
    finally:
        run(["umount", place])


@contextmanager
def looped(stick: Path, read_only: bool) -> Iterator[str]:
    """The stick as a block device."""
    made = run(["losetup", "--find", "--show", *(["--read-only"] if read_only else []), stick])
    device = made.decode().strip()
    try:
        yield device
    finally:
        run(["losetup", "--detach", device])


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Started for one test; a short path, as socket paths are limited."""
    made = Node(tmp_path_factory.mktemp("n"))
    (made.folder / "state").mkdir()
    run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", made.folder / "seed.key"])
    run(["openssl", "pkey", "-in", made.folder / "seed.key", "-pubout", "-out", made.folder / "seed.pub"])
    with (made.folder / "log").open("wb") as log:
        process = subprocess.Popen([arint(), "dev", "--data", made.folder / "node", "--free-ports", "--json"],
                                   stdout=log, stderr=log)
    try:
        wait_for("the node can be claimed", lambda: not made.claim()["claimed"], 60)
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def test_seeds_that_are_none_for_this_box_are_refused_and_then_the_right_one_is_taken_once(node: Node, tmp_path: Path):
    signed = seeds.sign(GOOD, tmp_path, node.folder / "seed.key")
    used = medium(tmp_path / "used.img", receipt='box = "press-2"\napplied = "admin eve"\n')
    wrong = medium(tmp_path / "wrong.img", seed=GOOD.replace("one_time", "onetime"))
    installs = medium(tmp_path / "installs.img", seed='[install]\ndisk = "sda"\n')
    for stick, read_only, sentence in [
        (wrong, False, "unknown field `onetime_password`"),
        (medium(tmp_path / "unsigned.img", seed=GOOD), True,
         "seed not applied: the medium with `arint-seed.toml` cannot be written, so the file would not be used up; "
         "sign it, or use a medium that can be written"),
        (medium(tmp_path / "forged.img", seed=GOOD.replace("anna", "eve"), sig=signed), False,
         "seed not applied: `arint-seed.toml.sig` does not fit `arint-seed.toml` and the key of this image; sign it "
         "again"),
        (used, False,
         "seed not applied: the seed on this medium was used up by the box `press-2`; write `arint-seed.toml` to it "
         "again for this one"),
        (installs, False, "seed not applied: `arint-seed.toml` names no `admin`, so there is nothing to set up with it"),
    ]:
        node.seed(stick, read_only=read_only)
        info = node.claim()
        assert info["claimed"] is False, sentence
        assert sentence in str(info["seed_refused"]), info
    receipt = tomllib.loads(content(wrong)[seeds.RECEIPT])
    assert "unknown field `onetime_password`" in receipt["error"] and receipt["applied"] == ""
    assert seeds.FILE in content(wrong), "a seed that was refused is not used up"

    good = medium(tmp_path / "good.img", seed=GOOD)
    node.seed(good)
    info = node.claim()
    assert info["claimed"] is True and "seed_refused" not in info
    assert set(content(good)) == {seeds.RECEIPT}, "the file with the password is gone"
    receipt = tomllib.loads(content(good)[seeds.RECEIPT])
    assert (receipt["seed"], receipt["applied"]) == ("site-1", "admin anna, system")
    assert "error" not in receipt and PASSWORD not in str(receipt)
    status, token = node.call("POST", "/v1/login", {"user": "anna", "password": PASSWORD})
    assert status == 200 and token["token"]

    # A claimed box takes none, signed or not.
    eve = GOOD.replace("anna", "eve").replace("site-1", "site-2")
    late = medium(tmp_path / "late.img", seed=eve)
    node.seed(late)
    assert set(content(late)) == {seeds.FILE}
    assert node.call("POST", "/v1/login", {"user": "eve", "password": PASSWORD})[0] == 401


def test_a_signed_seed_is_taken_from_a_medium_that_cannot_be_written_and_stays_there(node: Node, tmp_path: Path):
    stick = medium(tmp_path / "signed.img", seed=GOOD, sig=seeds.sign(GOOD, tmp_path, node.folder / "seed.key"))
    before = stick.read_bytes()
    node.seed(stick, read_only=True)
    assert node.claim()["claimed"] is True
    assert stick.read_bytes() == before
    assert (node.folder / "state/seeds").read_text() == "site-1\n"


def test_a_box_that_lost_its_power_between_claim_and_set_up_goes_on_with_the_same_seed_alone(node: Node, tmp_path: Path):
    # As the power cut leaves it: renamed on the medium, noted on the box, claimed, and nothing more.
    stick = medium(tmp_path / "cut.img", taken=GOOD)
    sha256 = run(["sha256sum"], stdin=GOOD.encode()).decode()[:64]
    (node.folder / "state/seed-begun").write_text(sha256)
    code = (node.runtime / "first-run-code").read_text().strip()
    assert node.call("POST", "/v1/claim", {"code": code, "user": "anna", "password": PASSWORD})[0] == 200
    other = medium(tmp_path / "other.img", taken=GOOD.replace("press-3", "press-9"))
    node.seed(other)
    assert set(content(other)) == {seeds.TAKEN}, "what another box began is not ours"
    node.seed(stick)
    assert set(content(stick)) == {seeds.RECEIPT}
    receipt = tomllib.loads(content(stick)[seeds.RECEIPT])
    assert receipt["applied"] == "admin anna, system"
    assert not (node.folder / "state/seed-begun").exists()
