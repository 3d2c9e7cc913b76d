"""Networks of one step trained many at a time by a kernel that is compiled for the processor."""
