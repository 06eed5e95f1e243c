"""The boards in `hw/` are whole, their facts are valid, and Buildroot's defconfigs follow from them."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / "image/buildroot"
BOARDS = sorted(str(path.relative_to(ROOT / "hw")) for path in (ROOT / "hw").glob("*/*") if path.is_dir())
TARGETS = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}
FILES = ["board.toml", "buildroot.config", "kernel.config", "cmdline", "README.md"]
LED = re.compile(r"[A-Za-z0-9_-]+(:[a-z0-9_-]+)*")


def facts(board: str) -> dict[str, Any]:
    """What the board says of itself."""
    return tomllib.loads((ROOT / "hw" / board / "board.toml").read_text())


def leds(value: Any) -> list[str]:
    """Every LED that is named somewhere in it."""
    if isinstance(value, dict):
        return [name for part in value.values() for name in leds(part)]
    return [value]


def test_the_boards_of_the_product_are_there() -> None:
    assert {"generic/x86_64", "generic/aarch64", "raspberrypi/rpi4", "raspberrypi/rpi5"} < set(BOARDS)


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_has_all_its_files_and_nothing_is_empty(board: str) -> None:
    missing = [name for name in FILES if not (ROOT / "hw" / board / name).is_file()]
    assert not missing, f"hw/{board} lacks {missing}"
    assert [name for name in FILES if not (ROOT / "hw" / board / name).read_text().strip()] == []


@pytest.mark.parametrize("board", BOARDS)
def test_the_facts_of_a_board_are_valid(board: str) -> None:
    known = {"id", "name", "arch", "target", "firmware", "fragments", "kernel", "tpm", "disk", "console", "leds", "button"}
    found = facts(board)
    assert set(found) <= known | {"watchdog"}, "a fact that nothing reads is a mistake"
    assert found["id"] == board
    assert TARGETS[found["arch"]] == found["target"]
    assert found["firmware"] in ("uefi", "u-boot")
    assert found["tpm"] in ("if present", "none")
    # ESP, two slots with their kernel images, recovery, black box and `state` are 3 GiB; the rest is `data`.
    assert found["disk"]["min_mib"] >= 4096
    assert found["watchdog"]["drivers"] and found["watchdog"]["max_seconds"] >= 15
    for name in leds(found.get("leds", {})):
        assert LED.fullmatch(name), f"`{name}` is no name of an LED below /sys/class/leds"


@pytest.mark.parametrize("board", BOARDS)
def test_the_command_line_names_the_consoles_and_nothing_that_the_image_decides(board: str) -> None:
    words = (ROOT / "hw" / board / "cmdline").read_text().split()
    assert [f"console={device}" for device in facts(board)["console"]["devices"]] == [
        word for word in words if word.startswith("console=")
    ]
    assert [word for word in words if word.startswith(("arint.", "root=", "init="))] == []


@pytest.mark.parametrize("board", BOARDS)
def test_the_readme_says_how_to_flash_it_what_its_leds_show_and_what_is_wrong_with_it(board: str) -> None:
    text = (ROOT / "hw" / board / "README.md").read_text()
    headings = " ".join(line.lower() for line in text.splitlines() if line.startswith("## "))
    assert [word for word in ("flashing", "led", "button", "errata") if word not in headings] == []
    for name in leds(facts(board).get("leds", {})):
        assert f"`{name}`" in text, f"the README does not say what the LED {name} shows"


@pytest.mark.parametrize("board", BOARDS)
def test_a_driver_of_the_watchdog_is_asked_for_in_the_kernel(board: str) -> None:
    options = {
        "i6300esb": "CONFIG_I6300ESB_WDT=y",
        "iTCO_wdt": "CONFIG_ITCO_WDT=y",
        "sp5100_tco": "CONFIG_SP5100_TCO=y",
        "w83627hf_wdt": "CONFIG_W83627HF_WDT=y",
        "sbsa_gwdt": "CONFIG_ARM_SBSA_WATCHDOG=y",
        "bcm2835_wdt": "CONFIG_BCM2835_WDT=y",
    }
    text = "".join((ROOT / "hw" / name / "kernel.config").read_text() for name in facts(board)["kernel"])
    for driver in facts(board)["watchdog"]["drivers"]:
        assert options[driver] in text


def test_the_defconfigs_are_what_the_fragments_give() -> None:
    done = subprocess.run([TREE / "compose", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    wanted = {f"{board.replace('/', '_')}_defconfig" for board in BOARDS}
    assert {path.name for path in (TREE / "configs").iterdir()} == wanted


@pytest.mark.parametrize("board", BOARDS)
def test_a_defconfig_sets_nothing_twice_and_names_only_files_that_exist(board: str) -> None:
    text = (TREE / "configs" / f"{board.replace('/', '_')}_defconfig").read_text()
    names = re.findall(r"^(?:# )?(BR2_\w+)(?:=| is not set)", text, re.MULTILINE)
    assert len(names) == len(set(names))
    outside = re.findall(r"\$\(BR2_EXTERNAL_ARINT_PATH\)/([^ \"]+)", text)
    assert outside
    assert [path for path in outside if not (TREE / path).exists()] == []


@pytest.mark.parametrize("board", BOARDS)
def test_nobody_can_log_in_on_a_release_image(board: str) -> None:
    text = (TREE / "configs" / f"{board.replace('/', '_')}_defconfig").read_text()
    assert "# BR2_TARGET_ENABLE_ROOT_LOGIN is not set\n" in text
    assert "# BR2_TARGET_GENERIC_GETTY is not set\n" in text
    for package in ("OPENSSH", "DROPBEAR", "UTIL_LINUX_LOGIN"):
        assert f"BR2_PACKAGE_{package}=y" not in text


def build(*words: str, **env: str) -> tuple[int, str]:
    """What the wrapper of `make image` says, without network."""
    done = subprocess.run([TREE / "build", *words], capture_output=True, text=True, check=False, env={**environment(), **env})
    return done.returncode, done.stderr


def environment() -> dict[str, str]:
    """Of this process, with no Buildroot named."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BUILDROOT")}


def test_without_buildroot_and_network_it_says_what_to_do_instead(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/nowhere"
    code, said = build("generic/x86_64", XDG_CACHE_HOME=str(tmp_path), BUILDROOT_URL=url)
    assert code == 1
    assert re.fullmatch(
        rf"image: Buildroot 2025\.02\.\d+ is not here and cannot be fetched from {url}: unpack it and name its folder "
        r"with BUILDROOT=…, or build the same contract from Debian packages with `make bench-image`\n",
        said,
    )


def test_a_buildroot_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    repository = tmp_path / "buildroot"
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", repository], check=True)
    (repository / "Makefile").write_text("export BR2_VERSION := 2026.02\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "another one"], check=True)
    release = re.findall(r"^release=(\S+)$", (TREE / "build").read_text(), re.MULTILINE)[0]
    subprocess.run([*git, "tag", release], check=True)
    code, said = build("generic/x86_64", XDG_CACHE_HOME=str(tmp_path), BUILDROOT_URL=f"file://{repository}")
    assert code == 1
    assert f"the tag {release} of file://{repository} is commit " in said
    assert said.endswith("was expected: it is not the release that was pinned\n")
    code, said = build("generic/x86_64", BUILDROOT=str(repository))
    assert (code, said) == (
        1,
        f"image: BUILDROOT is `{repository}` and holds 2026.02: "
        f"the folder of an unpacked Buildroot {release} was expected\n",
    )


def test_a_board_that_does_not_exist_is_answered_with_those_that_do() -> None:
    code, said = build("generic/toaster")
    assert (code, said) == (1, f"there is no board `generic/toaster` in hw/; there are: {', '.join(BOARDS)}\n")
