"""Records: what a run measured, on disk."""
