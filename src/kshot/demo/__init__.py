"""The page to draw on and the JSON API behind it (extra `demo`): learn from a few, predict many."""

__all__: list[str] = []
