"""config.json of a checkpoint: read strictly, each field checked. Nothing here needs torch."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eagle2_ref.errors import BadInput

DAMAGED = "the file is damaged; fetch or train the checkpoint again"
REFETCH = "fetch the checkpoint again"

LARGEST = 1 << 26
"""The largest size in a configuration: no published model has as large a vocabulary or width."""

LONGEST = 1 << 30
"""The longest context."""

PER_LAYER = ("intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", *PER_LAYER)
POSITIVE = ("rms_norm_eps", "layer_norm_eps", "rope_theta", "factor", "low_freq_factor", "high_freq_factor")
FLAGS = ("tie_word_embeddings", "attention_bias", "mlp_bias")


class Config:
    """The fields of a config.json, each checked when it is read.

    Args:
        raw: the fields.
        path: the file, in error messages.
        prefix: names the section, such as "rope_scaling.".
    """

    def __init__(self, raw: Mapping[str, Any], path: Path | str, prefix: str = "") -> None:
        self.raw, self.path, self.prefix = dict(raw), path, prefix

    def whole(self, name: str, default: int | None = None, least: int = 1, most: int = LARGEST) -> int:
        """A whole number. A field that has a default may be missing or null."""
        value = self._value(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.wrong(name, value, f"it must be a whole number from {least} to {most}")
        return value

    def positive(self, name: str, default: float | None = None) -> float:
        """A finite number above 0. A field that has a default may be missing or null."""
        value = self._value(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e300:
            raise self.wrong(name, value, "it must be a number above 0")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """true or false. It may be missing or null."""
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, value, "it must be true or false")
        return value

    def section(self, name: str) -> Config:
        """An object within the file; an empty one if it is missing or null."""
        value = self._value(name, {})
        if not isinstance(value, dict):
            raise self.wrong(name, value, "it must be an object")
        return Config(value, self.path, f"{self.prefix}{name}.")

    def wrong(self, name: str, value: Any, hint: str) -> BadInput:
        """The error for a value of a field."""
        return BadInput(f"{self.path}: {self.prefix}{name} is {shown(value)}", hint)

    def _value(self, name: str, default: Any) -> Any:
        value = self.raw.get(name)
        if name not in self.raw and default is None:
            raise BadInput(f"{self.path} lacks {self.prefix}{name}", "the checkpoint is incomplete, or of another kind")
        return default if value is None and default is not None else value


def shown(value: Any) -> str:
    """A value of JSON in an error message: strings in single quotes, nothing longer than a line."""
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def check_language_model(config: Config) -> None:
    """Check the types and ranges of the fields that most language models share. What a model makes of them is not known here.

    Raises:
        BadInput: a value is of the wrong type, out of range, or an end-of-text token that the vocabulary lacks.
    """
    raw = config.raw
    for name in SIZES:
        if name in raw and not (name in PER_LAYER and isinstance(raw[name], list | None)):
            config.whole(name)
    if "max_position_embeddings" in raw:
        config.whole("max_position_embeddings", most=LONGEST)
    config.whole("num_labels", 2, least=0, most=1 << 16)  # transformers makes a name for each, though no language model has any
    for name in FLAGS:
        config.flag(name, False)
    _check_numbers(config)
    for name in ("rope_parameters", "rope_scaling"):
        rope = config.section(name)
        for part in (rope, *(rope.section(kind) for kind, value in rope.raw.items() if isinstance(value, dict))):
            _check_numbers(part)
    eos, vocab_size = raw.get("eos_token_id"), raw.get("vocab_size")
    for token in eos if isinstance(eos, list) else [] if eos is None else [eos]:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < (vocab_size or LARGEST):
            of_tokens = f"token ids are 0 to {vocab_size - 1}" if vocab_size else "it must be a token id"
            raise config.wrong("eos_token_id", eos, of_tokens)
    if isinstance(raw.get("text_config"), dict):
        check_language_model(config.section("text_config"))


def _check_numbers(config: Config) -> None:
    for name in POSITIVE:
        config.positive(name, 1.0)


def read_config(directory: Path | str) -> Config:
    """config.json of a checkpoint. Raises BadInput if it is not a JSON object."""
    path = Path(directory) / "config.json"
    return Config(read_json(path), path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises BadInput if there is none."""
    require_file(path)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", "check the disk and the permissions of the file") from None
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise BadInput(f"{path} is not JSON: {reason}", DAMAGED) from None
    if not isinstance(raw, dict):
        raise BadInput(f"{path} is not a JSON object", DAMAGED)
    return raw


def require_file(path: Path) -> None:
    """Raise BadInput unless a path is a regular file: reading a pipe or a device may never end."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", REFETCH) from None
    if not regular:
        raise BadInput(f"{path} is not a file", REFETCH)
