"""Test of `invoking.py`."""

from invoking import Archive, Report


def test_a_service_invokes_another_and_starts_a_third(arint):
    assert arint.invoke(Report).data == {'total': 6}
    started, = arint.later
    assert started['what']['invoke']['target'] == {'service': 'examples.archive', 'payload': {'total': 6}}


def test_the_third_does_its_part(arint, caplog):
    caplog.set_level('INFO')
    arint.invoke(Archive, {'total': 6})
    assert 'archived 6' in caplog.text
