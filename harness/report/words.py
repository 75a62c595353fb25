"""Former names of functions of `report.text`, for bench and compare until they move to harness.benchmark."""

from harness.report.text import join_names as listed
from harness.report.text import number as number
from harness.report.text import plural as several
from harness.report.text import printable as shown
from harness.report.text import seconds as seconds

__all__ = [
    "listed",
    "number",
    "seconds",
    "several",
    "shown",
]
