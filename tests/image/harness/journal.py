"""What a clean journal may hold."""

import re
from typing import Any

#: Lines of this priority and graver that a sound box may have, each with its reason.
KNOWN = [
    # The firmware of the virtual machine, not the box.
    r"^ACPI",
    # virtio has no such thing.
    r"device-mapper: core: CONFIG_IMA_DISABLE_HTABLE",
]
#: Texts that are never fine, whatever their priority.
NEVER = re.compile(
    r"ordering cycle|Call Trace:|kernel BUG|general protection fault|segfault|Out of memory|oom-kill|panicked at|"
    r"blocked for more than|hung_task|Failed to start|entered failed state|Failed with result|core dump|EXT4-fs error|"
    r"XFS .*[Cc]orruption|Watchdog timeout|is not enabled, but|Unknown key name|Unknown lvalue|Unknown section"
)


def complaints(lines: list[dict[str, Any]]) -> list[str]:
    """The lines that should not be there."""
    found = []
    for line in lines:
        text = str(line["message"])
        known = any(re.search(pattern, text) for pattern in KNOWN)
        if NEVER.search(text) or (int(line["priority"]) <= 3 and not known):
            found.append(f"{line['unit']}: {text}")
    return found
