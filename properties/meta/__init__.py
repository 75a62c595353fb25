"""The harness and the reference, judged themselves."""
