"""Under whose eyes code runs: every call of torch is a draw, is followed, or is none of our business."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.enumeration.intercept.lazy_tensor import Lazy, rounded
from harness.enumeration.intercept.random_variables import Chance, NotEnumerable, Seed, Whole
from harness.enumeration.intercept.symbolic_float import Number
from harness.enumeration.intercept.tensor_storage import Memory, rearrange

OF_NO_INTEREST = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device, torch.Size, torch.layout})
Handler = Callable[..., Any]
DRAWS: dict[str, Handler] = {}
"""Functions that draw, by name: handler(mode, func, *args, **kwargs)."""
FOLLOWED: dict[str, Handler] = {}
"""Functions that can be followed when an argument is undecided, by name: handler(mode, func, *args, **kwargs)."""
MEASURED: dict[str, Handler] = {}
"""Functions that can be followed when an argument is an undecided float; whole numbers are decided for them."""
TELLING: dict[str, Handler] = {}
"""Functions that tell about a tensor without looking at its elements."""


def handles(table: dict[str, Handler], names: str) -> Callable[[Handler], Handler]:
    """Register a handler for functions of these names."""

    def register(handler: Handler) -> Handler:
        table.update(dict.fromkeys(names.split(), handler))
        return handler

    return register


class Interception(TorchFunctionMode):
    """Draws leave undecided numbers behind in tensors; what is done with them is followed, or refused by name."""

    def __init__(self, chance: Chance) -> None:
        super().__init__()
        self.chance, self.memory = chance, Memory(chance)
        self.working = False  # whether torch is called by our own handlers

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.__name__, kwargs or {}
        if self.working:
            return func(*args, **kwargs)
        if name in DRAWS:
            asked = {key: value for key, value in kwargs.items() if key != "generator"}
            return self._work(DRAWS[name], func, args, asked)
        if name in TELLING:
            return self._work(TELLING[name], func, args, kwargs)
        if not self.meets(args, kwargs):
            return func(*args, **kwargs)
        if name in FOLLOWED:
            return self._work(FOLLOWED[name], func, args, kwargs)
        if not self.holds([args, kwargs], floats=True):
            return self._work(_decide_all, func, args, kwargs)
        if name in MEASURED:
            return self._work(MEASURED[name], func, args, kwargs)
        raise NotEnumerable(f"torch.{name} of undecided numbers")

    def _work(self, handler: Handler, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        before, self.working = self.working, True
        try:
            return handler(self, func, *args, **kwargs)
        finally:
            self.working = before

    # --- what handlers are made of -------------------------------------------------------------------------------------

    def decided(self, value: Any) -> Any:
        """The same arguments, with all whole numbers in them decided."""
        if isinstance(value, Tensor) and self.memory.whole(value):
            self.memory.decide(value)
        if isinstance(value, Whole | Seed):
            return int(value)
        if isinstance(value, list | tuple):
            items = map(self.decided, value)
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, slice):
            return slice(*map(self.decided, (value.start, value.stop, value.step)))
        if isinstance(value, dict):
            return {key: self.decided(item) for key, item in value.items()}
        return value

    def objects(self, value: Any) -> Any:
        """A numpy array of the elements: plain numbers, Number and Whole."""
        if not isinstance(value, Tensor):
            return np.array(value, dtype=object)
        result = np.empty(value.shape, dtype=object)
        whole, flat = self.memory.whole(value), result.reshape(-1)
        numbers = None if whole else self.memory.numbers(value).map(lambda part: part.reshape(-1))
        ids = self.memory.ids(value).reshape(-1).tolist()
        for i, (number, plain) in enumerate(zip(ids, value.detach().reshape(-1).tolist(), strict=True)):
            if number < 0:
                flat[i] = plain
            else:
                flat[i] = self.chance.whole(number) if numbers is None else Number(self.chance, numbers.at(i))
        return result

    def meets(self, args: Any, kwargs: Any) -> bool:
        """Whether a call has to do with something undecided. Asked of every call there is, hence without a detour."""
        for value in args if not kwargs else (*args, *kwargs.values()):
            if type(value) not in OF_NO_INTEREST and self.holds(value):
                return True
        return False

    def holds(self, value: Any, floats: bool = False) -> bool:
        """Whether an argument, or something in it, holds something undecided; an undecided float, if it is asked for."""
        if isinstance(value, Tensor):
            memory = self.memory
            return bool(memory.shadows) and memory.holds(value) and not (floats and memory.whole(value))
        if isinstance(value, list | tuple):
            return any(self.holds(item, floats) for item in value)
        if isinstance(value, dict):
            return bool(value) and self.holds(list(value.values()), floats)
        if isinstance(value, slice):
            return self.holds([value.start, value.stop, value.step], floats)
        if isinstance(value, np.ndarray):
            return value.dtype == object and self.holds(value.tolist(), floats)
        return isinstance(value, Number if floats else Number | Whole | Seed)

    def numbers(self, value: Any) -> Lazy:
        """Floats of any make as Lazy, which may be all plain."""
        if isinstance(value, Number):
            return value.lazy
        if isinstance(value, Tensor) and self.memory.whole(value):
            self.memory.decide(value)
        return self.memory.numbers(value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64))

    def plain(self, value: Any) -> Tensor:
        """Numbers that are all decided, as float64."""
        numbers = self.numbers(value)
        if numbers.random.any():
            raise NotEnumerable("arithmetic between two undecided numbers")
        return numbers.shift

    def new(self, numbers: Lazy, dtype: torch.dtype, device: Any = None) -> Tensor:
        """A tensor that holds undecided numbers."""
        return self.memory.store(torch.empty(numbers.ids.shape, dtype=dtype, device=device), numbers)

    def new_wholes(self, wholes: Any, shape: Any, dtype: torch.dtype = torch.long, device: Any = None) -> Tensor:
        """A tensor of whole numbers, from the ids of undecided ones."""
        tensor = torch.zeros(shape, dtype=dtype, device=device)
        return self.memory.store_wholes(tensor, torch.as_tensor(wholes, dtype=torch.long).reshape(shape))

    def tensor(self, value: Any) -> Tensor:
        """A tensor of whatever torch.tensor takes, undecided numbers and whole numbers among it."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Number):
            return self.new(value.lazy, torch.get_default_dtype())
        if isinstance(value, Whole | Seed):
            return self.new_wholes([self.chance.keep(value)], ())
        value = value.tolist() if isinstance(value, np.ndarray) else value
        if isinstance(value, list | tuple) and self.holds(value):
            rows = [self.tensor(item) for item in value]
            return self.moved(lambda *data: torch.stack(data), rows)  # type: ignore[no-any-return]
        return torch.tensor(value)

    def moved(self, function: Callable[..., Any], data: list[Tensor]) -> Any:
        """function(*data), which only moves elements about; a view of one of them, where torch makes a view."""
        result = function(*data)
        first = result if isinstance(result, Tensor) else result[0]
        if self.memory.knows(first):
            if first.dtype not in {tensor.dtype for tensor in data}:
                raise NotEnumerable(f"the bits of undecided numbers, as {first.dtype}")
            return result
        return rearrange(self.memory, data, function, result) if self.holds(data) else result

    def cast(self, tensor: Tensor, made: Tensor) -> Tensor:
        """Give `made`, a copy of `tensor` in another dtype or on another device, the numbers of the original."""
        if self.memory.knows(made):
            return made
        if self.memory.whole(tensor):
            if made.is_floating_point() or made.dtype == torch.bool:
                self.memory.decide(tensor)
                return made.copy_(tensor)
            return self.memory.store_wholes(made, self.memory.ids(tensor))
        if made.is_floating_point():
            return self.memory.store(made, self.memory.numbers(tensor))
        return made.copy_(rounded(self.chance, self.memory.numbers(tensor), torch.trunc))

    def assign(self, target: Tensor, source: Tensor) -> Tensor:
        """target[...] = source, broadcast."""
        source = source.expand(target.shape)
        if not self.holds(source):
            self.memory.forget(target)
            with torch.inference_mode():
                target.copy_(source)
        elif self.memory.whole(source) and not target.is_floating_point():
            with torch.inference_mode():
                target.copy_(source)
            self.memory.store_wholes(target, self.memory.ids(source))
        elif self.memory.whole(source):
            self.memory.decide(source)
            self.assign(target, source)
        else:
            self.memory.store(target, self.memory.numbers(source))
        return target


@handles(
    TELLING,
    "__get__ size dim ndimension numel nelement stride is_contiguous storage_offset element_size get_device is_floating_point"
    " is_complex is_inference __len__ __hash__ requires_grad_ is_tensor",
)
def tell(_: Interception, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Also properties, of which some, such as T, are views."""
    return func(*args, **kwargs)


def _decide_all(mode: Interception, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What cannot be followed, but holds whole numbers only, sees them decided."""
    return func(*mode.decided(args), **mode.decided(kwargs))
