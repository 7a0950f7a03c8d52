"""Studies: what the comparison finds in real data, one command each, written down in docs/studies.md."""
