"""`python -m eagle2_ref` names the command, which belongs to the harness."""

import sys

print("eagle2_ref is a library; its command is `eagle2`, or `python -m harness`", file=sys.stderr)
sys.exit(2)
