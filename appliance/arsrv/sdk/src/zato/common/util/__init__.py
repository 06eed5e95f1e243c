"""Part of the module tree of the 3.2 dialect."""
