"""A reference EAGLE-2 decoder that reads like a book. README.md is the walk through the code.

>>> from eagle2_ref import Decoder, SamplingParams, SeededCoins
>>> decoder = Decoder.load("path/to/target", "path/to/draft/head")
>>> generation = decoder.generate([1, 2, 3], SamplingParams(temperature=0.7), SeededCoins(0))
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eagle2_ref.coins import SeededCoins as SeededCoins
    from eagle2_ref.decode import Decoder as Decoder
    from eagle2_ref.sampling import SamplingParams as SamplingParams
    from eagle2_ref.sequence import Block as Block
    from eagle2_ref.sequence import Generation as Generation

__version__ = "0.2.0"

_EXPORTS = {
    "Block": "sequence",
    "Decoder": "decode",
    "Generation": "sequence",
    "SamplingParams": "sampling",
    "SeededCoins": "coins",
}

__all__ = ["Block", "Decoder", "Generation", "SamplingParams", "SeededCoins", "__version__"]


def __getattr__(name: str) -> Any:
    """Import an exported name on first use: the version can be read without importing torch."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
