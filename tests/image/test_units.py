"""The units, users and sandboxes of `buildroot-overlay`, judged by the systemd of the image itself.  Nothing is booted."""

import configparser
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.tools import tool

TOP = Path(__file__).resolve().parents[2]
OVERLAY = TOP / "buildroot-overlay"
UNITS = OVERLAY / "usr/lib/systemd/system"

#: Highest score of a daemon's sandbox, as systemd-analyze counts it (10 is none at all).
HIGHEST = 2.0
#: Units that are not judged by their score, each with the reason.
PRIVILEGED = {
    "arint-storage.service": "partitions, formats and maps disks, and mounts for everyone, before anything has a network",
    "arint-support@.service": "the log-in of a person, while an admin has opened a support session; of no target",
    "arint-install.service": "writes a whole disk, at the word of a person at the box, and has no network",
    "arint-deadline.service": "restarts a box whose start hangs, and has no network",
    "emergency.service": "shows what failed and restarts the box; nothing of it stays",
}
#: Daemons of other packages, most of them with a drop-in of ours.
FOREIGN = ["dbus-broker.service", "systemd-hostnamed.service", "systemd-localed.service", "systemd-resolved.service",
           "systemd-timedated.service", "systemd-timesyncd.service"]
#: Daemons of systemd's that cannot do their work in less: the score they may have, and the reason.
WIDER = {
    "systemd-networkd.service": (2.1, "sets up interfaces: CAP_NET_ADMIN, packet sockets for DHCP, settings in /proc/sys/net"),
    "systemd-logind.service": (2.5, "root: hands out devices of a support session and takes the power button's events"),
    "systemd-journald.service": (4.7, "root: reads of each sender who it is, the kernel's log, and serves from the first moment on"),
    "systemd-udevd.service": (7.1, "root: makes device nodes and loads modules; it has no network but the kernel's own events"),
}
#: Services that do not end by themselves but are none of a running box.
NEVER = {
    "console-getty.service": "switched off by the generator's absence and the preset",
    "dbus.service": "another name: dbus-broker takes its place",
    "rc-local.service": "there is no /etc/rc.local",
    "systemd-ask-password-console.service": "its path unit is masked",
    "systemd-ask-password-wall.service": "its path unit is masked",
    "systemd-bsod.service": "of the initial RAM file system of systemd's, which is not ours",
    "systemd-initctl.service": "its socket is masked",
    **{f"systemd-{name}.service": "a job of the moment in which the box ends"
       for name in ["exit", "halt", "kexec", "poweroff", "reboot", "soft-reboot"]},
}
#: Scripts that lie on the device.
PROGRAMS = {f"usr/lib/arint/{name}" for name in ["rauc-boot", "rauc-service", "rauc-stream", "start-deadline"]}

#: Other names of units of systemd's.
ALIASES = {f"usr/lib/systemd/system/{name}" for name in
           ["default.target", "dbus-org.freedesktop.resolve1.service", "dbus-org.freedesktop.timesync1.service"]}


def unit_files(*endings: str) -> list[Path]:
    """Our unit files, without what is switched off by a link to /dev/null."""
    return sorted(path for path in UNITS.iterdir() if path.is_file() and not path.is_symlink() and path.suffix in endings)


def services() -> list[str]:
    return [path.name for path in unit_files(".service")]


def settings(path: Path) -> list[tuple[str, str]]:
    """The lines `Name=value` of a unit file."""
    lines = path.read_text().splitlines()
    return [(name, value) for name, _, value in (line.partition("=") for line in lines if re.match(r"[A-Z]\w+=", line))]


def value(path: Path, wanted: str) -> str | None:
    """The last value of a setting."""
    return next((value for name, value in reversed(settings(path)) if name == wanted), None)


def daemons() -> list[str]:
    return [path.name for path in unit_files(".service") if value(path, "Type") in {"notify", "dbus"}]


@pytest.fixture(scope="session")
def root() -> Path:
    """The root folder that the image is packed from."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = Path(os.environ.get("ARINT_IMAGE_ROOT", cache / "arint/image/root"))
    if not (folder / "usr/bin/systemd-analyze").exists():
        pytest.fail(f"`{folder}` holds no root of an image; `make bench-image` makes it")
    return folder


@pytest.fixture(scope="session")
def inside(root: Path):
    """Runs a program of the image in its root folder, with the overlay as it is in the checkout laid over it."""

    def run(*argv: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        # The overlay file system joins both, so that a change of a unit is judged without packing an image.
        joined = 'mount -t tmpfs none "$0/mnt" && mkdir "$0/mnt/u" "$0/mnt/w" "$0/mnt/r"' \
            ' && mount -t overlay none -o "lowerdir=$1:$0,upperdir=$0/mnt/u,workdir=$0/mnt/w" "$0/mnt/r"' \
            ' && mount --rbind /dev "$0/mnt/r/dev" && mount -t tmpfs none "$0/mnt/r/run"' \
            ' && r=$0 && shift && exec chroot "$r/mnt/r" "$@"'
        words = [tool("unshare"), "--map-root-user", "--mount", "sh", "-c", joined, str(root), str(OVERLAY), *argv]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_LOG_LEVEL": "warning"}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, input=stdin)

    return run


def test_systemd_has_nothing_to_say_about_any_of_our_units(inside):
    files = unit_files(".service", ".target", ".timer", ".mount", ".automount", ".slice", ".socket")
    names = [path.name for path in files if "@." not in path.name]
    done = inside("systemd-analyze", "--man=no", "verify", *names)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("target", ["multi-user.target", "arint-recovery.target", "arint-install.target"])
def test_no_start_has_an_ordering_cycle(inside, target):
    done = inside("systemd-analyze", "--man=no", "verify", target)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def score(done: subprocess.CompletedProcess[str]) -> float:
    found = re.search(r"Overall exposure level for \S+ ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found.group(1))


@pytest.mark.parametrize("name", sorted(set(services()) - set(PRIVILEGED)) + FOREIGN + sorted(WIDER))
def test_a_unit_has_a_sandbox_of_its_own(inside, name):
    highest, _ = WIDER.get(name, (HIGHEST, ""))
    done = inside("systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={highest * 10:.0f}", name)
    assert done.returncode == 0 and score(done) <= highest, done.stdout


def test_every_service_of_the_image_that_goes_on_running_is_judged(root):
    """A package that brings a daemon has it judged, or switched off, or named with the reason why not."""
    masked = {path.name for path in UNITS.iterdir() if path.is_symlink()}
    found = set()
    for path in (root / "usr/lib/systemd/system").glob("*.service"):
        if path.is_symlink() or "@" in path.name or path.name in masked or not path.stat().st_size:
            continue
        if value(path, "Type") != "oneshot" and (value(path, "ExecStart") or value(path, "Type")):
            found.add(path.name)
    judged = set(services()) | set(FOREIGN) | set(WIDER)
    assert found - judged - set(NEVER) == set(), "judge it, or switch it off in the overlay"
    assert {"systemd-journald.service", "systemd-networkd.service", "arsrv.service"} <= found


def test_what_reads_a_bundle_from_the_network_has_a_sandbox_of_its_own(inside):
    script = (OVERLAY / "usr/lib/arint/rauc-stream").read_text()
    properties = re.findall(r'--property=(\w+=)"?([^"\n\\]*?)"?\s*\\?$', script, re.MULTILINE)
    assert len(properties) > 20
    unit = "[Service]\nExecStart=/bin/true\n" + "".join(f"{name}{value}\n" for name, value in properties)
    write = 'cat > /usr/lib/systemd/system/streamed.service && exec systemd-analyze security --no-pager --offline=true streamed.service'
    assert score(inside("sh", "-c", write, stdin=unit)) <= HIGHEST


def test_a_unit_without_a_score_is_not_a_daemon():
    assert not set(PRIVILEGED) & set(daemons())
    assert set(PRIVILEGED) <= set(services())


@pytest.mark.parametrize("name", [name for name in daemons() if name != "rauc.service"])
def test_a_daemon_is_watched_limited_and_started_again(name):
    found = dict(settings(UNITS / name))
    assert found["Type"] == "notify" and found["Restart"] == "on-failure"
    for needed in ["WatchdogSec", "RestartSteps", "RestartMaxDelaySec", "MemoryHigh", "MemoryMax", "TasksMax", "OOMPolicy"]:
        assert needed in found, needed
    assert found["LimitNOFILE"] == "65536"
    assert int(found["TimeoutStopSec"]) <= 30


def test_nothing_of_ours_waits_for_the_network():
    for path in unit_files(".service", ".target", ".mount"):
        for name, text in settings(path):
            if name in {"After", "Wants", "Requires", "BindsTo", "Requisite"}:
                assert "network-online.target" not in text, path.name


def test_every_user_has_one_fixed_number_and_every_unit_a_user_of_its_own():
    rows = [line.split() for line in (OVERLAY / "usr/lib/sysusers.d/arint.conf").read_text().splitlines()
            if line and not line.startswith("#")]
    users = {row[1]: row[2] for row in rows if row[0].startswith("u")}
    groups = {row[1]: row[2] for row in rows if row[0] == "g"}
    numbers = [number.split(":")[0] for number in users.values()]
    assert all(64600 <= int(number) <= 64799 for number in [*numbers, *groups.values()])
    assert len(set(numbers)) == len(numbers) and len(set(groups.values())) == len(groups)
    assert groups["arint"] == "64600" and min(map(int, numbers)) >= 64610
    taken = [user for user in (value(UNITS / name, "User") for name in daemons()) if user and user != "root"]
    assert len(set(taken)) == len(taken) and set(taken) <= set(users)


def test_users_have_the_numbers_in_the_image_too_and_nobody_has_a_password(root):
    passwd = {line.split(":")[0]: line.split(":") for line in (root / "etc/passwd").read_text().splitlines()}
    assert passwd["arint-arclst"][2:4] == ["64611", "64600"]
    assert passwd["arint-arwadm"][2:4] == ["64614", "64600"]
    for line in (root / "etc/shadow").read_text().splitlines():
        assert line.split(":")[1].startswith(("!", "*")), line.split(":")[0]


def enabled(root: Path) -> Iterator[str]:
    """What targets of the image want, by the links in its folders."""
    for folder in ["etc/systemd/system", "usr/lib/systemd/system"]:
        for wants in [*(root / folder).glob("*.wants"), *(root / folder).glob("*.requires")]:
            yield from (link.name for link in wants.iterdir())


def test_only_what_is_wanted_is_on_and_nobody_can_log_in(root):
    names = set(enabled(root))
    for name in ["arclst.service", "arsrv.service", "arldb.service", "arwadm.service", "aros.service",
                 "arint-late.timer", "systemd-networkd.service", "var.mount", "data.mount", "efi.automount"]:
        assert name in names, name
    off = {path.name for path in UNITS.rglob("*") if path.is_symlink()}
    for name in names - off:
        assert not re.match(r"(.*getty@|console-|serial-getty|container-getty|ssh|apt-|dpkg-|fstrim|man-db|e2scrub)", name), name
    presets = (OVERLAY / "usr/lib/systemd/system-preset/00-arint.preset").read_text().splitlines()
    assert presets[-1] == "disable *"


def test_generators_that_could_open_a_log_in_are_switched_off():
    folder = OVERLAY / "etc/systemd/system-generators"
    for name in ["getty", "debug", "run", "ssh", "sysv"]:
        assert os.readlink(folder / f"systemd-{name}-generator") == "/dev/null"
    for name in ["debug-shell.service", "rescue.service"]:
        assert os.readlink(UNITS / name) == "/dev/null"


def test_the_config_files_of_the_image_are_taken(inside):
    for unit in ["arclst", "arsrv", "arldb", "arwadm", "aros"]:
        done = inside(f"/usr/bin/{unit}", "--check")
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_nothing_in_the_overlay_is_generated_or_can_be_run_but_its_scripts():
    for path in OVERLAY.rglob("*"):
        name = str(path.relative_to(OVERLAY))
        if path.is_symlink():
            # Switched off, or another name of a unit of systemd's.
            assert os.readlink(path) == "/dev/null" or name in ALIASES, name
        elif path.is_file():
            assert bool(path.stat().st_mode & 0o111) == (name in PROGRAMS), name
            text = path.read_text()
            first = text.splitlines()[0]
            assert first.startswith(("#", "<?xml")), f"{name} does not begin with what it is for"
            assert "generated by" not in text.lower(), name


def test_rauc_writes_only_the_slots_and_takes_only_signed_bundles():
    config = configparser.ConfigParser()
    config.read(OVERLAY / "etc/rauc/system.conf")
    assert config["system"]["bundle-formats"] == "verity" and config["system"]["bootloader"] == "custom"
    assert config["keyring"]["path"].startswith("/etc/rauc/")
    devices = {config[name]["device"].removeprefix("/dev/disk/by-partlabel/") for name in config if name.startswith("slot.")}
    assert devices == {"slot-a", "slot-b", "boot-a", "boot-b"}
