"""Studies of heads on frozen encoders (docs/heads.md) and of learned optimizers."""
