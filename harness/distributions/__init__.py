"""The expected distribution, computed by transformers alone: exact laws, scores of given texts, sampling campaigns."""
