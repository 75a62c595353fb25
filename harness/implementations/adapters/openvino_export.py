"""Convert checkpoints of transformers to OpenVINO IR: causal LMs and EAGLE-3 heads. Conversions are cached by their checksum.

It runs in the engine's environment and needs optimum-intel.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any


def converted(source: str | Path, cache: Path, *, eagle3: bool = False, with_layers: bool = False) -> Path:
    """The folder of a checkpoint's IR; the checkpoint is converted if `cache` does not have it.

    with_layers: write the layers that an EAGLE-3 head's config.json names into its IR; otherwise the engine chooses them.
    """
    source = Path(source)
    kind = "lm" if not eagle3 else "eagle3-layers" if with_layers else "eagle3"
    folder = cache / f"{kind}-{checksum(source)[:20]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=cache))
        try:
            _export((load_head if eagle3 else load_lm)(source), draft)
            if with_layers:
                _write_layers(source, draft)
            draft.rename(folder)  # atomic; fails if another process has converted the same checkpoint meanwhile
        except OSError:
            if not folder.exists():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder


def checksum(folder: Path) -> str:
    """SHA-256 of the names and contents of a checkpoint's files, and of the exporter's version."""
    digest = hashlib.sha256(version("optimum-intel").encode())
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def load_lm(source: Path) -> Any:
    """A causal LM in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(source), dtype=torch.float32, local_files_only=True, trust_remote_code=False)


def load_head(source: Path) -> Any:
    """An EAGLE-3 head in optimum-intel's own module, in float32.

    optimum-intel's command line loads the same class through `trust_remote_code`. It leaves `d2t` (offsets from the head's
    tokens to the target's) uninitialised if the checkpoint has none; here it is zero, which is what its absence means.
    """
    from optimum.exporters.openvino.model_patcher import LlamaEagle3ForCausalLM
    from safetensors.torch import load_file
    from transformers import LlamaConfig

    class Head(LlamaEagle3ForCausalLM):  # type: ignore[misc]
        """A class outside of optimum: the exporter finds no library for classes that optimum itself defines."""

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


def _write_layers(source: Path, folder: Path) -> None:
    """Write the feature layers into an IR. A checkpoint names the layers before which the target is read, as the published code
    does; the engine reads after a layer, hence the 1 that is subtracted."""
    import openvino

    config = json.loads((source / "config.json").read_text())
    before: list[int] = config["eagle_config"]["eagle_aux_hidden_state_layer_ids"]
    path = folder / "openvino_model.xml"
    model = openvino.Core().read_model(path)
    model.set_rt_info([layer - 1 for layer in before], "hidden_layers_list")
    openvino.save_model(model, folder / "new.xml", compress_to_fp16=False)
    del model  # it maps the file of weights that is replaced
    for suffix in (".xml", ".bin"):
        (folder / "new").with_suffix(suffix).replace(path.with_suffix(suffix))


def _write_tokenizer(vocab_size: int, folder: Path) -> None:
    """A tokenizer whose words are token ids.

    The engine compares the tokenizers of target and drafter when it opens a pair; prompts and texts never pass through them.
    """
    from optimum.exporters.openvino.convert import export_tokenizer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({str(token): token for token in range(vocab_size)}, "0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(["0"])  # without a special token the converter builds a graph that it then rejects
    export_tokenizer(PreTrainedTokenizerFast(tokenizer_object=words), folder)


if __name__ == "__main__":  # run by `eagle2 convert openvino`, under the engine's Python
    read, write = Path(sys.argv[1]), Path(sys.argv[2])
    write.mkdir(parents=True, exist_ok=True)
    _export((load_head if "Eagle3" in (read / "config.json").read_text() else load_lm)(read), write)
