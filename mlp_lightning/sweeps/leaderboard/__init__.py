"""The ranked runs of a sweep: as text, as a file and as a figure."""
