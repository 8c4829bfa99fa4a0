"""Learners: one file a paper, in folders by which part of the learner is learned."""

__all__: list[str] = []
