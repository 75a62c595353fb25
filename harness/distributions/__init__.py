"""What the truth is: the target's law, computed by transformers alone, without caches or trees of ours."""
