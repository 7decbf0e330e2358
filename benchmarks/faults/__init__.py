"""Faults on purpose, against real processes: what is promised under each, checked and counted (`make faults`)."""
