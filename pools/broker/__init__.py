"""The broker's core: decides without I/O, on the standard library alone."""
