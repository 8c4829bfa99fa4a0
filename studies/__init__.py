"""Studies: of heads on frozen encoders, each a table of docs/heads.md, and of a memory."""
