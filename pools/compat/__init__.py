"""Compatibility of libraries with threads and free-threaded Python: a dated table, installed packages, observations."""
