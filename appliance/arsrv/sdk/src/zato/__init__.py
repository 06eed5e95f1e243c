"""The module tree that services of the 3.2 dialect import from.  Everything in it is defined in `arint`."""
