"""`python -m harness.cli` is `eagle2`."""

from harness.cli import main

main()
