"""Shadow memory: which tensor elements are symbolic. One shadow per storage, so that views and in-place writes agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from harness.enumeration.intercept.lazy_tensor import UNIFORM, LazyTensor, Transform
from harness.enumeration.intercept.random_variables import NotEnumerable, RandomVariables


@dataclass
class Shadow:
    """The symbolic elements of one storage.

    In the storage itself, symbolic floats read as NaN and symbolic integers as the smallest integer.

    Attributes:
        storage: weak reference, since another storage may be allocated at the address of one that was freed.
        transform: of symbolic floats; None if the symbolic elements are integers.
        ids: id of every element's random variable, -1 for plain elements.
        shift, scale: as in LazyTensor.
    """

    storage: StorageWeakRef
    transform: Transform | None
    ids: Tensor
    shift: Tensor
    scale: Tensor

    def alive(self) -> bool:
        return not self.storage.expired()  # type: ignore[no-untyped-call]


class ShadowMemory:
    """The shadows of all storages of one execution, by address.

    Writes use inference mode, which permits them on all kinds of tensors.
    """

    def __init__(self, variables: RandomVariables) -> None:
        self.variables = variables
        self.shadows: dict[int, Shadow] = {}

    def is_symbolic(self, tensor: Tensor) -> bool:
        """Whether some element is symbolic. Drops the shadow of a storage that has no symbolic elements any more."""
        shadow = self._shadow(tensor)
        if shadow is None:
            return False
        found = bool((_view(shadow.ids, tensor) >= 0).any())
        if not found and not bool((shadow.ids >= 0).any()):
            del self.shadows[tensor.untyped_storage().data_ptr()]
        return found

    def tracks(self, tensor: Tensor) -> bool:
        """Whether the storage of a tensor has a shadow."""
        return self._shadow(tensor) is not None

    def holds_integers(self, tensor: Tensor) -> bool:
        """Whether the symbolic elements are integers."""
        shadow = self._shadow(tensor)
        return shadow is not None and shadow.transform is None

    def ids(self, tensor: Tensor) -> Tensor:
        """Ids of the elements, -1 for plain ones."""
        shadow = self._shadow(tensor)
        return torch.full(tensor.shape, -1) if shadow is None else _view(shadow.ids, tensor).clone()

    def lazy(self, tensor: Tensor) -> LazyTensor:
        """The elements as a LazyTensor, which may be all plain."""
        shadow = self._shadow(tensor)
        if shadow is None or shadow.transform is None:
            values = tensor.detach().double().cpu()
            return LazyTensor(UNIFORM, torch.full(tensor.shape, -1), values, torch.zeros_like(values))
        ids = _view(shadow.ids, tensor).clone()
        shift = torch.where(ids >= 0, _view(shadow.shift, tensor), tensor.detach().double().cpu())
        return LazyTensor(shadow.transform, ids, shift, torch.where(ids >= 0, _view(shadow.scale, tensor), 0.0))

    def store(self, tensor: Tensor, numbers: LazyTensor) -> Tensor:
        """Write symbolic floats into a tensor; returns the tensor."""
        if not tensor.numel():
            return tensor
        shadow = self._shadow(tensor) or self._new_shadow(tensor, numbers.transform)
        if shadow.transform != numbers.transform:
            if (shadow.ids >= 0).any() and _view(shadow.ids, tensor).numel() != shadow.ids.numel():
                held = shadow.transform or "integers"
                raise NotEnumerable(f"a tensor that holds {numbers.transform} in some places and {held} in others")
            shadow.transform = numbers.transform
        with torch.inference_mode():
            tensor.copy_(torch.where(numbers.symbolic, torch.nan, numbers.shift))
            for part, values in ((shadow.ids, numbers.ids), (shadow.shift, numbers.shift), (shadow.scale, numbers.scale)):
                _view(part, tensor).copy_(values)
        return tensor

    def store_integers(self, tensor: Tensor, ids: Tensor) -> Tensor:
        """Write symbolic integers into a tensor where `ids` is not -1; returns the tensor."""
        if not tensor.numel():
            return tensor
        shadow = self._shadow(tensor) or self._new_shadow(tensor, None)
        if shadow.transform is not None:
            raise NotEnumerable("symbolic integers written among symbolic floats")
        with torch.inference_mode():
            _view(shadow.ids, tensor).copy_(ids)
            tensor.masked_fill_((ids >= 0).to(tensor.device), torch.iinfo(tensor.dtype).min)
        return tensor

    def clear(self, tensor: Tensor) -> None:
        """Mark a tensor as overwritten by plain numbers."""
        shadow = self._shadow(tensor)
        if shadow is not None:
            with torch.inference_mode():
                _view(shadow.ids, tensor).fill_(-1)

    def decide(self, tensor: Tensor) -> None:
        """Branch over all values of the symbolic integers of a tensor, and write the values into it."""
        shadow = self._shadow(tensor)
        if shadow is None:
            return
        assert shadow.transform is None
        real = torch.as_strided(tensor.detach(), shadow.ids.shape, (1,), 0)
        places = _view(torch.arange(len(shadow.ids)), tensor).reshape(-1)
        for place in places[shadow.ids[places] >= 0].tolist():
            if shadow.ids[place] >= 0:
                value = int(self.variables.integer(int(shadow.ids[place])))
                with torch.inference_mode():
                    shadow.ids[place] = -1
                    real[place] = value

    def _shadow(self, tensor: Tensor) -> Shadow | None:
        if not self.shadows or tensor.layout != torch.strided:
            return None
        shadow = self.shadows.get(tensor.untyped_storage().data_ptr())  # 0 for an empty or abstract tensor: no shadow has it
        return shadow if shadow is not None and shadow.alive() else None

    def _new_shadow(self, tensor: Tensor, transform: Transform | None) -> Shadow:
        refuse_low_precision(tensor.dtype)
        storage = tensor.untyped_storage()
        n = storage.nbytes() // tensor.element_size()
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        shift, scale = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
        shadow = Shadow(reference, transform, torch.full((n,), -1), shift, scale)
        self.shadows = {address: known for address, known in self.shadows.items() if known.alive()}
        self.shadows[storage.data_ptr()] = shadow
        return shadow


def refuse_low_precision(dtype: torch.dtype) -> None:
    """Refuse 16-bit random numbers: they have so few values that they are not distributed as an interval, nor as a race."""
    if dtype.is_floating_point and dtype.itemsize < 4:
        raise NotEnumerable(f"random numbers in {dtype}, whose rounding changes the distribution")


def _view(part: Tensor, tensor: Tensor) -> Tensor:
    """The part of a shadow that belongs to a view of its storage."""
    return torch.as_strided(part, tensor.shape, tensor.stride(), tensor.storage_offset())


def rearrange(memory: ShadowMemory, data: Sequence[Tensor], function: Callable[..., Any], result: Any) -> Any:
    """Copy the symbolic elements of `data` into `result` = function(*data), where the function only rearranges elements.

    The function is applied to the positions of the elements as well, which shows the origin of each.
    """
    starts = [0, *itertools.accumulate(tensor.numel() for tensor in data)]
    positions = [
        torch.arange(start, start + tensor.numel(), device=tensor.device).reshape(tensor.shape)
        for start, tensor in zip(starts, data, strict=False)
    ]
    for target, origin in zip(_tensors(result), _tensors(function(*positions)), strict=True):
        origin = origin.cpu()
        if any(memory.holds_integers(tensor) for tensor in data):
            ids = torch.cat([memory.ids(tensor).reshape(-1) for tensor in data])
            memory.store_integers(target, ids[origin])
        else:
            memory.store(target, concatenate([memory.lazy(tensor) for tensor in data]).at(origin))
    return result


def concatenate(parts: Sequence[LazyTensor]) -> LazyTensor:
    """The elements of several LazyTensors of one transform, flattened."""
    transforms = {part.transform for part in parts if part.symbolic.any()}
    if len(transforms) != 1:
        raise NotEnumerable(f"{' and '.join(map(str, transforms))} in one tensor")
    flat = [torch.cat([getattr(part, name).reshape(-1) for part in parts]) for name in ("ids", "shift", "scale")]
    return LazyTensor(transforms.pop(), *flat)


def _tensors(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [item for item in result if isinstance(item, Tensor)]
