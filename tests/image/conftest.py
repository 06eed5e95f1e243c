"""Fixtures: images, boxes, the LAN.  A failing test says in which folder its box lies."""
