"""A box with 256 MiB: everything runs, and a message passes."""

import json
import re

from conftest import CHANNEL, SERVICE, wait_confirmed
from harness import images
from test_first_boot import all_active
from harness.waiting import wait_for


def test_everything_runs_in_256_mib(make_box, image_a: images.Image):
    box = make_box("small", image_a.disk, memory=256)
    box.start()
    box.claim()
    wait_for("every unit runs", lambda: all_active(box), 120)
    box.api.deploy("image_echo.py", SERVICE)
    box.api.put("Channel", "image-echo", CHANNEL)
    for number in range(50):
        answer = box.api.channel("/image/echo", json.dumps({"n": number}).encode())
        assert answer.json()["echo"] == {"n": number}
    wait_confirmed(box)
    status = box.api.get("/v1/system/status")
    used = (status["memory"]["total"] - status["memory"]["available"]) >> 20
    print(f"used of 256 MiB: {used} MiB")
    assert status["failed_units"] == []
    restarts = {unit["name"]: unit["restarts"] for unit in box.api.get("/v1/system/units") if unit["restarts"]}
    assert restarts == {}, "no unit was killed for memory"
    killed = [line["message"] for line in box.api.journal(lines=20000, priority=7)
              if re.search(r"(?i)out of memory|oom-kill|oom_reaper|killed process", line["message"])]
    assert killed == []
