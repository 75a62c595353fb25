"""CUDA without a GPU, as far as it can be wrong without being slow: a device of its own, and graphs that know addresses alone.

Tensors of the device have their numbers on the CPU, so that code which looks at them runs. What a GPU would refuse is refused,
two devices in one operation; and what the host would have to wait for is noted. A graph is what was launched while it was
recorded, launched again; what it did not make itself it holds weakly, as a real one would read freed memory.
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
"""What may be given tensors of two devices."""

INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
"""Whose second argument are indices, which may be on the CPU: they are copied."""

WAITING = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default}
"""The host must know a number before it goes on."""


class There(Tensor):
    """A tensor on the device."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> There:
        make: Any = torch.Tensor._make_wrapper_subclass
        with torch.inference_mode(False):  # views of what was made outside count versions
            made: There = make(cls, numbers.shape, strides=numbers.stride(), dtype=numbers.dtype, device=torch.device(DEVICE))
        made.numbers = numbers
        return made

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"There({self.numbers})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise AssertionError(f"{func} was called on the device, which is not open")


class Device(Mode):  # type: ignore[misc]
    """Makes what is asked for on the device. waits: operations for which the host had to wait, in their order."""

    def __init__(self) -> None:
        super().__init__()
        register()
        self.waits: list[str] = []

    def __enter__(self) -> Any:
        self._lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # so that torch.tensor(…, device=DEVICE) comes by here
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
        asked = kwargs.get("device")
        stays = there if asked is None else torch.device(asked) == torch.device(DEVICE)
        looked = any(index.dtype == torch.bool or not isinstance(index, There) for index in indices)
        back = not stays or (func is aten.copy_.default and not isinstance(args[0], There))
        if there and (func in WAITING or looked or back):
            self.waits.append(func.overloadpacket.__name__)
        own = {id(_here(x)): x for x in given}  # what an operation in place returns is the very tensor that it was given
        kwargs |= {"device": torch.device("cpu")} if asked is not None and stays else {}
        out = func(*tree_map(_here, args), **tree_map(_here, kwargs))
        return tree_map(lambda x: own.get(id(x), There(x) if stays else x) if isinstance(x, Tensor) else x, out)


def _tensors(nest: Any) -> list[Tensor]:
    return [x for x in tree_leaves(nest) if isinstance(x, Tensor)]


def _here(x: Any) -> Any:
    return x.numbers if isinstance(x, There) else x


class Nowhere(torch._C._acc.PrivateUse1Hooks):
    """Not there, so that nobody who looks for an accelerator takes this one."""

    def is_available(self) -> bool:
        return False

    def is_built(self) -> bool:
        return True

    def has_primary_context(self, _index: int) -> bool:
        return True


@cache
def register() -> None:
    """The device's name, once a process."""
    registration: Any = torch.utils.backend_registration
    if not hasattr(registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch knows no devices written in Python")
    registration._setup_privateuseone_for_python_backend(DEVICE.partition(":")[0], hook=Nowhere())


@pytest.fixture
def device() -> Iterator[Device]:
    """The device, open."""
    with Device() as opened:
        yield opened


class Graph(Mode):  # type: ignore[misc]
    """Operations, written down with the very tensors. While they are, nothing is run: what they changed is put back."""

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
        return weakref.ref(x) if x.dim() else x  # a number may have been written into the code

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
    assert tensor is not None, "the graph reads a tensor that is gone"
    return tensor


@contextmanager
def _capturing(graph: Graph) -> Iterator[None]:
    with graph:
        yield
    graph.close()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda, as far as graphs need it."""
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
