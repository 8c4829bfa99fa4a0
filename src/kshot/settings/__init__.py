"""Settings: the same learners under other kinds of task."""

__all__ = []
