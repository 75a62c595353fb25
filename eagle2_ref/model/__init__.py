"""The target and its parts: network, cache, checkpoints."""
