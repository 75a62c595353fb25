"""Checkpoints of transformers as OpenVINO IR: causal LMs and EAGLE-3 heads, made once and kept under a checksum of what they are.

Needs optimum-intel; runs in the engine's environment.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any


def converted(source: str | Path, cache: Path, *, eagle3: bool = False, told: bool = False) -> Path:
    """The folder of the IR of a checkpoint, converted first if `cache` lacks it.

    told: into the IR of an EAGLE-3 head go the layers that its config.json names; without, the engine takes those it thinks of.
    """
    source = Path(source)
    kind = "lm" if not eagle3 else "eagle3-told" if told else "eagle3"
    folder = cache / f"{kind}-{checksum(source)[:20]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=cache))
        try:
            _export((load_head if eagle3 else load_lm)(source), draft)
            if told:
                _tell_layers(source, draft)
            draft.rename(folder)  # whole or not at all; whoever else converted it in the meantime did the same
        except OSError:
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def checksum(folder: Path) -> str:
    """SHA-256 over names and contents of a checkpoint's files, and over the exporter's version."""
    from importlib.metadata import version

    digest = hashlib.sha256(version("optimum-intel").encode())
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def load_lm(source: Path) -> Any:
    """A causal LM, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(source), dtype=torch.float32, local_files_only=True, trust_remote_code=False)


def load_head(source: Path) -> Any:
    """An EAGLE-3 head in optimum-intel's own module, in float32.

    Its command line loads the same class through `trust_remote_code`, and leaves `d2t` (offsets from the head's tokens to the
    target's) uninitialised where the checkpoint has none: here it is zero then, which is what its absence means.
    """
    from optimum.exporters.openvino.model_patcher import LlamaEagle3ForCausalLM
    from safetensors.torch import load_file
    from transformers import LlamaConfig

    class Head(LlamaEagle3ForCausalLM):  # type: ignore[misc]
        """A name outside of optimum: for classes inside, the exporter asks which library they come from, and knows none."""

    tensors: dict[str, Any] = {}
    for path in sorted(source.glob("*.safetensors")):
        tensors |= load_file(path)
    model = Head(LlamaConfig(**json.loads((source / "config.json").read_text()), attn_implementation="sdpa")).float().eval()
    reported = model.model.load_state_dict(tensors, strict=False)
    if wrong := set(reported.missing_keys) - {"d2t", "t2d"} | set(reported.unexpected_keys):
        raise ValueError(f"{source} is not an EAGLE-3 head: {', '.join(sorted(wrong))} missing or unknown")
    return model


def _export(model: Any, folder: Path) -> None:
    from optimum.exporters.openvino.convert import export_from_model
    from optimum.intel import OVConfig

    export_from_model(model, output=folder, task="text-generation-with-past", ov_config=OVConfig(dtype="fp32"))
    _write_tokenizer(model.config.vocab_size, folder)


def _tell_layers(source: Path, folder: Path) -> None:
    """A checkpoint names the layers before which the target is read (as the published code has it); the engine reads behind."""
    import openvino

    config = json.loads((source / "config.json").read_text())
    before: list[int] = config["eagle_config"]["eagle_aux_hidden_state_layer_ids"]
    path = folder / "openvino_model.xml"
    model = openvino.Core().read_model(path)
    model.set_rt_info([layer - 1 for layer in before], "hidden_layers_list")
    openvino.save_model(model, folder / "told.xml", compress_to_fp16=False)
    del model  # it maps the weights that are replaced
    for suffix in (".xml", ".bin"):
        (folder / "told").with_suffix(suffix).replace(path.with_suffix(suffix))


def _write_tokenizer(vocab_size: int, folder: Path) -> None:
    """A tokenizer whose words are the numbers of the tokens.

    The engine compares the tokenizers of target and drafter before it opens a pair; prompts and texts never pass through them.
    """
    from optimum.exporters.openvino.convert import export_tokenizer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(token): token for token in range(vocab_size)}, "0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(["0"])  # without a special token the converter builds a graph that it then refuses
    export_tokenizer(PreTrainedTokenizerFast(tokenizer_object=words), folder)


if __name__ == "__main__":  # `eagle2 convert openvino` runs it so, under the engine's Python
    read, write = Path(sys.argv[1]), Path(sys.argv[2])
    write.mkdir(parents=True, exist_ok=True)
    _export((load_head if "Eagle3" in (read / "config.json").read_text() else load_lm)(read), write)
