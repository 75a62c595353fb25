"""Guards against randomness that the interception missed: aten operations, swallowed refusals, and global generators."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.enumeration.intercept.dispatch import InterceptMode
from harness.enumeration.intercept.random_variables import NotEnumerable
from harness.global_generators import GeneratorUsedError, unchanged_generators


class AtenGuard(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Below torch's functions: refuses aten operations that draw from a generator, or that read symbolic numbers."""

    def __init__(self, mode: InterceptMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._mode, self._drawing = mode, dict[int, bool]()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled under this mode, and the check for it would double the cost of a call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._mode.working:
            drawing = self._drawing.get(id(func))  # operations are never freed, and hashing them is slow
            if drawing is None:
                drawing = self._drawing[id(func)] = torch.Tag.nondeterministic_seeded in func.tags
            if drawing and _draws(func, args, kwargs):
                raise NotEnumerable(f"{func} draws from a generator that cannot be followed")
            if self._mode.memory.shadows and self._reads(args, kwargs):
                raise NotEnumerable(f"{func} reads symbolic numbers")
        return func(*args, **kwargs)

    def _reads(self, args: Any, kwargs: Any) -> bool:
        self._mode.working = True  # the function mode is still active if the caller is not Python code
        try:
            return self._mode.involves_symbolic(args, kwargs)
        finally:
            self._mode.working = False


def _draws(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether the operation draws. Attention kernels are tagged because of their dropout, and draw nothing without it."""
    names = [argument.name for argument in func._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return "dropout_p" not in names or bool(given.get("dropout_p", 0.0))


class RefusalGuard:
    """Raises the first refusal again on exit, if the code or TorchScript has swallowed or replaced it."""

    def __enter__(self) -> None:
        NotEnumerable.raised.clear()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if NotEnumerable.raised and not isinstance(error, NotEnumerable):
            raise NotEnumerable.raised[0] from error


@contextlib.contextmanager
def generator_guard() -> Iterator[None]:
    """Global generators must not change: intercepted code never draws from them, so a change is a draw that was missed."""
    try:
        with unchanged_generators():
            yield
    except GeneratorUsedError as error:
        raise NotEnumerable(f"{error}, by a call that was not intercepted") from None
