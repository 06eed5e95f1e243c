"""Boxes in QEMU, the LAN between them, and their disks after a power cut.

Nothing here asserts anything: it starts, stops, calls and reads.  What has to hold is in the `test_*.py` beside it.
"""
