"""From files to episodes: data sets, class splits and the episode sampler."""

__all__: list[str] = []
