"""Test of `documents.py`."""

from documents import Names, Table


def test_xml_is_read(arint):
    body = '<people><person name="anna"/><person name="bert"/></people>'
    answer = arint.request(Names, method='POST', body=body, data_format='xml')
    assert answer.data == {'names': ['anna', 'bert']}, answer.error


def test_rows_become_csv(arint):
    answer = arint.request(Table, data_format='csv')
    assert answer.content_type == 'text/csv'
    assert answer.text.splitlines() == ['name,age', 'anna,30', 'bert,40']
