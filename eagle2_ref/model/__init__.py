"""The target model: forward pass, cache, checkpoints."""
