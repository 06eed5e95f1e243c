"""Test of `databases.py`."""

import sqlite3

from databases import Stock


def test_a_row_is_found_or_not(arint, tmp_path):
    file = tmp_path / 'shop.db'
    with sqlite3.connect(file) as shop:
        shop.execute('create table stock (article text, count integer)')
        shop.execute("insert into stock values ('A-100', 7)")
    arint.sql['shop'] = f'sqlite:///{file}'
    assert arint.request(Stock, json={'article': 'A-100'}).data == {'count': 7}
    assert arint.request(Stock, json={'article': "x' or 1=1"}).data == {'count': 0}
