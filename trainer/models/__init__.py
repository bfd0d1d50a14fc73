"""The torch side of each architecture in ``scaling.architectures``."""
