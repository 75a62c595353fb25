"""A fake CUDA device and fake CUDA graphs, to test device handling without a GPU.

Tensors of the device store their numbers on the CPU. The device refuses operations on tensors of two devices, and records the
operations that would make the host wait. A graph repeats the operations that were launched while it was captured; it holds
tensors that it did not create by weak references, as a real graph would read freed memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _python_dispatch
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten

Mode: Any = _python_dispatch.TorchDispatchMode

DEVICE = "pretended:0"


CROSSING = {aten._to_copy.default, aten.copy_.default}
"""Operations that accept tensors of two devices."""

INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
"""Operations whose indices may be on the CPU, from where they are copied."""

WAITING = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default}
"""Operations whose result the host must wait for."""


class There(Tensor):
    """A tensor on the device."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> There:
        make: Any = torch.Tensor._make_wrapper_subclass
        with torch.inference_mode(False):  # views of tensors from outside inference mode count versions
            made: There = make(cls, numbers.shape, strides=numbers.stride(), dtype=numbers.dtype, device=torch.device(DEVICE))
        made.numbers = numbers
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"There({self.numbers})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise AssertionError(f"{func} was called on the device, which is not active")


class Device(Mode):  # type: ignore[misc]
    """Runs operations on the fake device. waits: operations that made the host wait, in order."""

    def __init__(self) -> None:
        super().__init__()
        register()
        self.waits: list[str] = []

    def __enter__(self) -> Any:
        self._lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # so that torch.tensor(…, device=DEVICE) is intercepted
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(self._lifts)
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        given, indices = _tensors((args, kwargs)), _tensors(args[1]) if func in INDEXING else []
        there = any(isinstance(x, There) for x in given)
        strangers = [x for x in given if not isinstance(x, There) and x.dim() and not any(x is index for index in indices)]
        if there and strangers and func not in CROSSING:
            raise AssertionError(f"{func} was given tensors of two devices, here one of shape {list(strangers[0].shape)}")
        requested = kwargs.get("device")
        stays = there if requested is None else torch.device(requested) == torch.device(DEVICE)
        looked = any(index.dtype == torch.bool or not isinstance(index, There) for index in indices)
        back = not stays or (func is aten.copy_.default and not isinstance(args[0], There))
        if there and (func in WAITING or looked or back):
            self.waits.append(func.overloadpacket.__name__)
        own = {id(_here(x)): x for x in given}  # an in-place operation returns the tensor that it was given
        kwargs |= {"device": torch.device("cpu")} if requested is not None and stays else {}
        out = func(*tree_map(_here, args), **tree_map(_here, kwargs))
        return tree_map(lambda x: own.get(id(x), There(x) if stays else x) if isinstance(x, Tensor) else x, out)


def _tensors(nest: Any) -> list[Tensor]:
    return [x for x in tree_leaves(nest) if isinstance(x, Tensor)]


def _here(x: Any) -> Any:
    return x.numbers if isinstance(x, There) else x


class Nowhere(torch._C._acc.PrivateUse1Hooks):
    """Reports that the device is not available, so that code which selects an accelerator ignores it."""

    def is_available(self) -> bool:
        return False

    def is_built(self) -> bool:
        return True

    def has_primary_context(self, _index: int) -> bool:
        return True


@cache
def register() -> None:
    """Register the name of the device, once in a process."""
    registration: Any = torch.utils.backend_registration
    if not hasattr(registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this version of torch supports no devices written in Python")
    registration._setup_privateuseone_for_python_backend(DEVICE.partition(":")[0], hook=Nowhere())


@pytest.fixture
def device() -> Iterator[Device]:
    """The fake device, active."""
    with Device() as opened:
        yield opened


class Graph(Mode):  # type: ignore[misc]
    """Captured operations with their tensors. Capturing must have no effect, so that changed tensors are restored."""

    def __init__(self) -> None:
        super().__init__()
        self._launched: list[tuple[Any, Any, Any, Any]] = []
        self._made: dict[int, Tensor] = {}
        self._found: dict[int, Tensor] = {}
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_map(self._address, (args, kwargs or {}))
        out = func(*args, **(kwargs or {}))
        self._launched.append((func, *given, out))
        self._made.update((id(x), x) for x in tree_leaves(out) if isinstance(x, Tensor) and id(x) not in self._found)
        return out

    def _address(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or id(x) in self._made:
            return x
        self._found[id(x)] = x
        self._before.setdefault(x.untyped_storage().data_ptr(), (x, x.clone()))
        return weakref.ref(x) if x.dim() else x  # a scalar may be a constant of the code

    def close(self) -> None:
        for tensor, before in self._before.values():
            tensor.copy_(before)
        self._found.clear()
        self._before.clear()

    def replay(self) -> None:
        for func, args, kwargs, out in self._launched:
            again = func(*tree_map(_read, args), **tree_map(_read, kwargs))
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _read(x: Any) -> Any:
    if not isinstance(x, weakref.ref):
        return x
    tensor = x()
    assert tensor is not None, "the graph reads a tensor that was freed"
    return tensor


@contextmanager
def _capturing(graph: Graph) -> Iterator[None]:
    with graph:
        yield
    graph.close()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the parts of torch.cuda that graphs use."""
    stream = type("Stream", (), {"wait_stream": lambda *_: None})
    stand_ins = {
        "CUDAGraph": Graph,
        "graph": _capturing,
        "Stream": stream,
        "current_stream": stream,
        "stream": nullcontext,
        "device": nullcontext,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
