"""Tests, e-processes, bounds and intervals: arrays in, numbers out. Imports no model and reads no files."""

from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
