"""Lets the tests of the examples run services without a node: the fixture `arint`."""

pytest_plugins = ['arint.testing']
