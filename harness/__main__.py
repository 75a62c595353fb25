"""`python -m harness` runs `eagle2`."""

from harness.cli import main

main()
