"""Which libraries bear threads and a missing GIL: a dated table, joined with what is installed and what was seen."""
