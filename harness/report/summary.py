"""Former names of functions of `report.text`, for callers that are not renamed yet."""

from harness.report.text import code_span as code
from harness.report.text import escape_markdown as text

__all__ = ["code", "text"]
