"""The former name of a function of `report.cases`, for a caller that is not renamed yet."""

from harness.report.cases import find_case as find

__all__ = ["find"]
