"""Test of `streaming.py`."""

import json

from streaming import Export, Ticks


def test_events_have_names_and_data(arint):
    answer = arint.request(Ticks)
    assert answer.content_type == 'text/event-stream'
    assert answer.text.startswith('event: tick\ndata: {"n":0}\n\n'), answer.text


def test_an_export_is_a_line_for_each_row(arint):
    lines = arint.request(Export).text.splitlines()
    assert len(lines) == 10_000 and json.loads(lines[-1]) == {'row': 9999}
