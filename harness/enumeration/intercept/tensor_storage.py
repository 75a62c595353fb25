"""Which tensors hold undecided numbers: a shadow beside each storage, so that views, slices and writes in place agree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from harness.enumeration.intercept.lazy_tensor import UNIFORM, Kind, Lazy
from harness.enumeration.intercept.random_variables import Chance, NotEnumerable


@dataclass
class Shadow:
    """What is known of a storage: for each of its elements an id, -1 where the element is what the storage says.

    kind None: whole numbers. In the storage itself undecided floats read as NaN, whole numbers as the smallest there is.
    storage: a weak reference; another storage may come to the address of one that is gone.
    """

    storage: StorageWeakRef
    kind: Kind | None
    ids: Tensor
    shift: Tensor
    scale: Tensor

    def alive(self) -> bool:
        return not self.storage.expired()  # type: ignore[no-untyped-call]


class Memory:
    """The undecided numbers of one execution, by the addresses of the storages that hold them.

    Writes are made in inference mode, where they are allowed on tensors of all kinds.
    """

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.shadows: dict[int, Shadow] = {}

    def holds(self, tensor: Tensor) -> bool:
        """Whether some element of a tensor is undecided. A storage that holds nothing undecided any more is let go."""
        shadow = self._shadow(tensor)
        if shadow is None:
            return False
        found = bool((_view(shadow.ids, tensor) >= 0).any())
        if not found and not bool((shadow.ids >= 0).any()):
            del self.shadows[tensor.untyped_storage().data_ptr()]
        return found

    def knows(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in a storage that has held undecided numbers."""
        return self._shadow(tensor) is not None

    def whole(self, tensor: Tensor) -> bool:
        """Whether the undecided elements are whole numbers."""
        shadow = self._shadow(tensor)
        return shadow is not None and shadow.kind is None

    def ids(self, tensor: Tensor) -> Tensor:
        shadow = self._shadow(tensor)
        return torch.full(tensor.shape, -1) if shadow is None else _view(shadow.ids, tensor).clone()

    def numbers(self, tensor: Tensor) -> Lazy:
        """The numbers of a tensor, undecided or plain."""
        shadow = self._shadow(tensor)
        if shadow is None or shadow.kind is None:
            values = tensor.detach().double().cpu()
            return Lazy(UNIFORM, torch.full(tensor.shape, -1), values, torch.zeros_like(values))
        ids = _view(shadow.ids, tensor).clone()
        shift = torch.where(ids >= 0, _view(shadow.shift, tensor), tensor.detach().double().cpu())
        return Lazy(shadow.kind, ids, shift, torch.where(ids >= 0, _view(shadow.scale, tensor), 0.0))

    def store(self, tensor: Tensor, numbers: Lazy) -> Tensor:
        """Write undecided floats into a tensor; returns it."""
        if not tensor.numel():
            return tensor
        shadow = self._shadow(tensor) or self._begin(tensor, numbers.kind)
        if shadow.kind != numbers.kind:
            if (shadow.ids >= 0).any() and not (_view(shadow.ids, tensor).numel() == shadow.ids.numel()):
                raise NotEnumerable(f"a tensor that holds {numbers.kind} in some places and {shadow.kind or 'tokens'} in others")
            shadow.kind = numbers.kind
        with torch.inference_mode():
            tensor.copy_(torch.where(numbers.random, torch.nan, numbers.shift))
            for part, values in ((shadow.ids, numbers.ids), (shadow.shift, numbers.shift), (shadow.scale, numbers.scale)):
                _view(part, tensor).copy_(values)
        return tensor

    def store_wholes(self, tensor: Tensor, ids: Tensor) -> Tensor:
        """Write undecided whole numbers into a tensor where ids has them; returns it."""
        if not tensor.numel():
            return tensor
        shadow = self._shadow(tensor) or self._begin(tensor, None)
        if shadow.kind is not None:
            raise NotEnumerable("whole numbers written among undecided floats")
        with torch.inference_mode():
            _view(shadow.ids, tensor).copy_(ids)
            tensor.masked_fill_((ids >= 0).to(tensor.device), torch.iinfo(tensor.dtype).min)
        return tensor

    def forget(self, tensor: Tensor) -> None:
        """The tensor was overwritten by plain numbers."""
        shadow = self._shadow(tensor)
        if shadow is not None:
            with torch.inference_mode():
                _view(shadow.ids, tensor).fill_(-1)

    def decide(self, tensor: Tensor) -> None:
        """Decide all whole numbers of a tensor, and write them into it."""
        shadow = self._shadow(tensor)
        if shadow is None:
            return
        assert shadow.kind is None
        real = torch.as_strided(tensor.detach(), shadow.ids.shape, (1,), 0)
        places = _view(torch.arange(len(shadow.ids)), tensor).reshape(-1)
        for place in places[shadow.ids[places] >= 0].tolist():
            if shadow.ids[place] >= 0:
                value = int(self.chance.whole(int(shadow.ids[place])))
                with torch.inference_mode():
                    shadow.ids[place] = -1
                    real[place] = value

    def _shadow(self, tensor: Tensor) -> Shadow | None:
        if not self.shadows or tensor.layout != torch.strided:
            return None
        shadow = self.shadows.get(tensor.untyped_storage().data_ptr())  # of an empty or abstract tensor 0, which none has
        return shadow if shadow is not None and shadow.alive() else None

    def _begin(self, tensor: Tensor, kind: Kind | None) -> Shadow:
        refuse_coarse(tensor.dtype)
        storage = tensor.untyped_storage()
        n = storage.nbytes() // tensor.element_size()
        reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        shift, scale = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
        shadow = Shadow(reference, kind, torch.full((n,), -1), shift, scale)
        self.shadows = {place: known for place, known in self.shadows.items() if known.alive()}
        self.shadows[storage.data_ptr()] = shadow
        return shadow


def refuse_coarse(dtype: torch.dtype) -> None:
    """Random numbers of 16 bits are so few that their law is not that of an interval, nor that of a race."""
    if dtype.is_floating_point and dtype.itemsize < 4:
        raise NotEnumerable(f"random numbers in {dtype}, whose rounding shows in the law")


def _view(part: Tensor, tensor: Tensor) -> Tensor:
    """The part of a shadow that belongs to a view of its storage."""
    return torch.as_strided(part, tensor.shape, tensor.stride(), tensor.storage_offset())


def rearrange(memory: Memory, data: Sequence[Tensor], function: Callable[..., Any], result: Any) -> Any:
    """Give `result`, which is function(*data), the undecided numbers of its sources; function only moves elements about.

    The function is applied to the places of the elements too, which tells where each one comes from.
    """
    starts = [0, *itertools.accumulate(tensor.numel() for tensor in data)]
    places = [
        torch.arange(start, start + tensor.numel(), device=tensor.device).reshape(tensor.shape)
        for start, tensor in zip(starts, data, strict=False)
    ]
    for made, origin in zip(_flat(result), _flat(function(*places)), strict=True):
        origin = origin.cpu()
        if any(memory.whole(tensor) for tensor in data):
            ids = torch.cat([memory.ids(tensor).reshape(-1) for tensor in data])
            memory.store_wholes(made, ids[origin])
        else:
            memory.store(made, gathered([memory.numbers(tensor) for tensor in data]).at(origin))
    return result


def gathered(parts: Sequence[Lazy]) -> Lazy:
    """All numbers of several Lazy, flat, one after the other. They must be of one kind."""
    kinds = {part.kind for part in parts if part.random.any()}
    if len(kinds) != 1:
        raise NotEnumerable(f"{' and '.join(map(str, kinds))} in one tensor")
    flat = [torch.cat([getattr(part, name).reshape(-1) for part in parts]) for name in ("ids", "shift", "scale")]
    return Lazy(kinds.pop(), *flat)


def _flat(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else [item for item in result if isinstance(item, Tensor)]
