# -*- coding: utf-8 -*-

# A helper module: no services here.

import re

_order_no = re.compile('[A-Z][0-9]+$')


def is_valid(order_no):
    return bool(_order_no.match(order_no))
