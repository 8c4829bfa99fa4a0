"""Studies: heads on frozen encoders (docs/heads.md), a memory, learned optimizers."""
