"""Parts for mlp_lightning: an example for docs/own_parts.md."""
