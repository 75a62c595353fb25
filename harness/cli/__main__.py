"""`python -m harness.cli` runs `eagle2`."""

from harness.cli import main

main()
