"""Former names of functions of `report.text` and `report.sentences`, for callers that are not renamed yet."""

from harness.report.sentences import LIKENESSES as LIKENESSES
from harness.report.sentences import excuse_sentence as excused
from harness.report.sentences import false_alarm_sentence as false_alarm
from harness.report.sentences import likeness_sentence as likeness
from harness.report.sentences import statement_lines as statement
from harness.report.sentences import verdict_sentence as sentence
from harness.report.sentences import witness_sentence as witness
from harness.report.text import join_names as listed
from harness.report.text import number as number
from harness.report.text import plural as several
from harness.report.text import printable as shown
from harness.report.text import seconds as seconds
from harness.report.text import token_label as token

__all__ = [
    "LIKENESSES",
    "excused",
    "false_alarm",
    "likeness",
    "listed",
    "number",
    "seconds",
    "sentence",
    "several",
    "shown",
    "statement",
    "token",
    "witness",
]
