"""Intercepts torch calls: random draws become symbolic, supported operations propagate them, all other calls run unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.enumeration.intercept.lazy_tensor import LazyTensor, round_values
from harness.enumeration.intercept.random_variables import NotEnumerable, RandomVariables, SymbolicInt, SymbolicSeed
from harness.enumeration.intercept.symbolic_float import SymbolicFloat
from harness.enumeration.intercept.tensor_storage import ShadowMemory, rearrange

PLAIN_TYPES = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device, torch.Size, torch.layout})
Handler = Callable[..., Any]
SAMPLING: dict[str, Handler] = {}
"""Handlers of functions that draw random numbers, by name of the function: handler(mode, func, *args, **kwargs)."""
SYMBOLIC: dict[str, Handler] = {}
"""Handlers of functions that are supported on symbolic arguments of any kind."""
SYMBOLIC_FLOATS: dict[str, Handler] = {}
"""Handlers of functions that are supported on symbolic floats; symbolic integers are branched on first."""
METADATA: dict[str, Handler] = {}
"""Handlers of functions that read properties of a tensor, not its elements."""


def handles(table: dict[str, Handler], names: str) -> Callable[[Handler], Handler]:
    """Register a handler for functions of these names."""

    def register(handler: Handler) -> Handler:
        table.update(dict.fromkeys(names.split(), handler))
        return handler

    return register


class InterceptMode(TorchFunctionMode):
    """Replaces random draws by symbolic numbers in tensors, and follows or refuses the operations on them.

    Attributes:
        variables: random variables of this execution.
        memory: which elements of which tensors are symbolic.
        working: whether torch is being called by a handler, whose calls run unchanged.
    """

    def __init__(self, variables: RandomVariables) -> None:
        super().__init__()
        self.variables, self.memory = variables, ShadowMemory(variables)
        self.working = False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.__name__, kwargs or {}
        if self.working:
            return func(*args, **kwargs)
        if name in SAMPLING:
            return self._work(SAMPLING[name], func, args, {key: value for key, value in kwargs.items() if key != "generator"})
        if name in METADATA:
            return self._work(METADATA[name], func, args, kwargs)
        if not self.involves_symbolic(args, kwargs):
            return func(*args, **kwargs)
        if name in SYMBOLIC:
            return self._work(SYMBOLIC[name], func, args, kwargs)
        if not self.holds_symbolic([args, kwargs], floats=True):
            return self._work(_decide_all, func, args, kwargs)
        if name in SYMBOLIC_FLOATS:
            return self._work(SYMBOLIC_FLOATS[name], func, args, kwargs)
        raise NotEnumerable(f"torch.{name} of symbolic numbers")

    def _work(self, handler: Handler, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        before, self.working = self.working, True
        try:
            return handler(self, func, *args, **kwargs)
        finally:
            self.working = before

    # --- helpers for handlers ---------------------------------------------------------------------------------------------

    def decide(self, value: Any) -> Any:
        """The same arguments, after branching over all symbolic integers in them."""
        if isinstance(value, Tensor) and self.memory.holds_integers(value):
            self.memory.decide(value)
        if isinstance(value, SymbolicInt | SymbolicSeed):
            return int(value)
        if isinstance(value, list | tuple):
            items = map(self.decide, value)
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        if isinstance(value, slice):
            return slice(*map(self.decide, (value.start, value.stop, value.step)))
        if isinstance(value, dict):
            return {key: self.decide(item) for key, item in value.items()}
        return value

    def as_objects(self, value: Any) -> Any:
        """The elements as a numpy array of plain numbers, SymbolicFloat and SymbolicInt objects."""
        if not isinstance(value, Tensor):
            return np.array(value, dtype=object)
        result = np.empty(value.shape, dtype=object)
        whole, flat = self.memory.holds_integers(value), result.reshape(-1)
        numbers = None if whole else self.memory.lazy(value).map(lambda part: part.reshape(-1))
        ids = self.memory.ids(value).reshape(-1).tolist()
        for i, (number, plain) in enumerate(zip(ids, value.detach().reshape(-1).tolist(), strict=True)):
            if number < 0:
                flat[i] = plain
            else:
                flat[i] = self.variables.integer(number) if numbers is None else SymbolicFloat(self.variables, numbers.at(i))
        return result

    def involves_symbolic(self, args: Any, kwargs: Any) -> bool:
        """Whether a call has symbolic arguments. Every call is tested, so this is written for speed."""
        for value in args if not kwargs else (*args, *kwargs.values()):
            if type(value) not in PLAIN_TYPES and self.holds_symbolic(value):
                return True
        return False

    def holds_symbolic(self, value: Any, floats: bool = False) -> bool:
        """Whether an argument, or an item in it, is symbolic; with `floats`, whether it is a symbolic float."""
        if isinstance(value, Tensor):
            memory = self.memory
            return bool(memory.shadows) and memory.is_symbolic(value) and not (floats and memory.holds_integers(value))
        if isinstance(value, list | tuple):
            return any(self.holds_symbolic(item, floats) for item in value)
        if isinstance(value, dict):
            return bool(value) and self.holds_symbolic(list(value.values()), floats)
        if isinstance(value, slice):
            return self.holds_symbolic([value.start, value.stop, value.step], floats)
        if isinstance(value, np.ndarray):
            return value.dtype == object and self.holds_symbolic(value.tolist(), floats)
        return isinstance(value, SymbolicFloat if floats else SymbolicFloat | SymbolicInt | SymbolicSeed)

    def as_lazy(self, value: Any) -> LazyTensor:
        """A number or tensor as a LazyTensor, which may be all plain."""
        if isinstance(value, SymbolicFloat):
            return value.lazy
        if isinstance(value, Tensor) and self.memory.holds_integers(value):
            self.memory.decide(value)
        return self.memory.lazy(value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64))

    def require_plain(self, value: Any) -> Tensor:
        """Plain numbers as float64; refuses symbolic ones."""
        numbers = self.as_lazy(value)
        if numbers.symbolic.any():
            raise NotEnumerable("arithmetic between two symbolic numbers")
        return numbers.shift

    def new_floats(self, numbers: LazyTensor, dtype: torch.dtype, device: Any = None) -> Tensor:
        """A tensor with these elements."""
        return self.memory.store(torch.empty(numbers.ids.shape, dtype=dtype, device=device), numbers)

    def new_integers(self, integers: Any, shape: Any, dtype: torch.dtype = torch.long, device: Any = None) -> Tensor:
        """A tensor of the symbolic integers with these ids."""
        tensor = torch.zeros(shape, dtype=dtype, device=device)
        return self.memory.store_integers(tensor, torch.as_tensor(integers, dtype=torch.long).reshape(shape))

    def as_tensor(self, value: Any) -> Tensor:
        """As torch.tensor, for data with symbolic items."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, SymbolicFloat):
            return self.new_floats(value.lazy, torch.get_default_dtype())
        if isinstance(value, SymbolicInt | SymbolicSeed):
            return self.new_integers([self.variables.register(value)], ())
        value = value.tolist() if isinstance(value, np.ndarray) else value
        if isinstance(value, list | tuple) and self.holds_symbolic(value):
            rows = [self.as_tensor(item) for item in value]
            return self.rearrange(lambda *data: torch.stack(data), rows)  # type: ignore[no-any-return]
        return torch.tensor(value)

    def rearrange(self, function: Callable[..., Any], data: list[Tensor]) -> Any:
        """function(*data), for a function that only rearranges elements; a view wherever torch returns a view."""
        result = function(*data)
        first = result if isinstance(result, Tensor) else result[0]
        if self.memory.tracks(first):
            if first.dtype not in {tensor.dtype for tensor in data}:
                raise NotEnumerable(f"the bits of symbolic numbers, as {first.dtype}")
            return result
        return rearrange(self.memory, data, function, result) if self.holds_symbolic(data) else result

    def cast(self, tensor: Tensor, result: Tensor) -> Tensor:
        """Copy the symbolic elements of `tensor` into `result`, its copy in another dtype or on another device."""
        if self.memory.tracks(result):
            return result
        if self.memory.holds_integers(tensor):
            if result.is_floating_point() or result.dtype == torch.bool:
                self.memory.decide(tensor)
                return result.copy_(tensor)
            return self.memory.store_integers(result, self.memory.ids(tensor))
        if result.is_floating_point():
            return self.memory.store(result, self.memory.lazy(tensor))
        return result.copy_(round_values(self.variables, self.memory.lazy(tensor), torch.trunc))

    def assign(self, target: Tensor, source: Tensor) -> Tensor:
        """target[...] = source, with broadcasting; returns target."""
        source = source.expand(target.shape)
        if not self.holds_symbolic(source):
            self.memory.clear(target)
            with torch.inference_mode():
                target.copy_(source)
        elif self.memory.holds_integers(source) and not target.is_floating_point():
            with torch.inference_mode():
                target.copy_(source)
            self.memory.store_integers(target, self.memory.ids(source))
        elif self.memory.holds_integers(source):
            self.memory.decide(source)
            self.assign(target, source)
        else:
            self.memory.store(target, self.memory.lazy(source))
        return target


@handles(
    METADATA,
    "__get__ size dim ndimension numel nelement stride is_contiguous storage_offset element_size get_device is_floating_point"
    " is_complex is_inference __len__ __hash__ requires_grad_ is_tensor",
)
def read_metadata(_: InterceptMode, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run unchanged. Some properties, such as T, are views."""
    return func(*args, **kwargs)


def _decide_all(mode: InterceptMode, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run an unsupported function whose symbolic arguments are all integers, after branching over them."""
    return func(*mode.decide(args), **mode.decide(kwargs))
