"""Studies of heads on frozen encoders: each file makes one table of docs/heads.md."""
