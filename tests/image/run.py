"""Runs the suite in lanes: two processes of pytest, each with one box at a time, on two cores.

Usage: run.py [--whole | arguments of pytest, for example a file or `-k name`]
Each line of output names its lane; what failed comes again at the end.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
#: What goes on at the same time; the longest lane is the suite's time.
LANES = [
    ["test_first_boot.py", "test_update.py::test_it_updates_to_b_and_back_to_a_and_refuses_to_go_down",
     "test_update.py::test_what_is_not_a_sound_bundle_for_this_box_is_refused_with_the_reason"],
    ["test_harness.py", "test_first_stage.py", "test_units.py", "test_boards.py", "test_flash.py",
     "test_seed_node.py", "test_memory.py"],
]
#: What `--whole` adds: what takes long (docs/testing-image.md).
MORE = [
    ["test_update.py"],
    ["test_powercut.py", "test_lan.py", "test_network.py", "test_trust.py", "test_damage.py", "test_buildroot_steps.py",
     "test_uboot.py", "test_seed.py", "test_recovery.py", "test_installer.py", "test_life.py"],
]

def main() -> int:
    """Starts the lanes and waits for them."""
    arguments = sys.argv[1:]
    lanes = LANES
    if arguments == ["--whole"]:
        # A file that is run whole is not run in parts as well.
        lanes = [[file for file in first if file.split("::")[0] not in more] + more
                 for first, more in zip(LANES, MORE, strict=True)]
        arguments = []
    if arguments:
        lanes = [arguments]
    logs = os.environ.get("ARINT_IMAGE_LOGS") or tempfile.mkdtemp(prefix="arint-image-")
    here = {**os.environ, "ARINT_IMAGE_LOGS": logs, "PYTHONUNBUFFERED": "1"}
    started = time.monotonic()
    # What both lanes need is built once, before they start.
    from harness import images

    print("building the images", flush=True)
    images.image(images.VERSION_A, disk=True)
    print(f"built in {time.monotonic() - started:.0f} s", flush=True)
    running: list[tuple[int, subprocess.Popen[str], list[str]]] = []
    readers = []
    for number, files in enumerate(lanes):
        words = [sys.executable, "-m", "pytest", "-q", "-rA" if arguments else "-rf", "-s", "-p", "no:cacheprovider", *files]
        process = subprocess.Popen(words, cwd=HERE, env=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said: list[str] = []
        reader = threading.Thread(target=_pass_on, args=(number, process, said))
        reader.start()
        readers.append(reader)
        running.append((number, process, said))
    try:
        codes = [process.wait() for _, process, _ in running]
    except KeyboardInterrupt:
        for _, process, _ in running:
            process.send_signal(signal.SIGINT)
        codes = [process.wait() for _, process, _ in running]
    for reader in readers:
        reader.join()
    print(f"image suite: {'passed' if not any(codes) else 'FAILED'} in {time.monotonic() - started:.0f} s", flush=True)
    for number, _, said in running:
        for line in said:
            if line.startswith("FAILED") or line.startswith("ERROR"):
                print(f"lane {number}: {line.rstrip()}")
    if any(codes):
        print(f"everything of the boxes lies in {logs}")
        return 1
    if not os.environ.get("ARINT_IMAGE_LOGS"):
        subprocess.run(["rm", "-rf", logs], check=False)
    return 0


def _pass_on(number: int, process: "subprocess.Popen[str]", said: list[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if line.strip():
            print(f"{number}| {line}", end="", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
