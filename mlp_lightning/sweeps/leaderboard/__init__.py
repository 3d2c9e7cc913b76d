"""The runs of a sweep, ranked: as text, as a file, as a picture."""
