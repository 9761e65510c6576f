"""Everything that decides: no await, no I/O, no clock, no logger."""
