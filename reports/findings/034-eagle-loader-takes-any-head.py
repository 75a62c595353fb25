"""SafeAILab/EAGLE: the loader accepts a head with renamed tensors and leaves random weights.

PYTHONPATH=CHECKOUT .engines/eagle/bin/python 034-eagle-loader-takes-any-head.py TARGET HEAD    (for example of fixtures/pairs)
"""

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from eagle.model import ea_model
from safetensors.torch import load_file

torch.set_num_threads(1)
torch.manual_seed(0)
source, head, folder = Path(sys.argv[1]), load_file(Path(sys.argv[2]) / "model.safetensors"), Path(tempfile.mkdtemp())
config = {**json.loads((source / "config.json").read_text()), "torch_dtype": "float32", "rope_theta": 10000.0}
config.pop("rope_parameters", None), config.pop("dtype", None)
(folder / "config.json").write_text(json.dumps(config))
(folder / "model.safetensors").symlink_to((source / "model.safetensors").resolve())
index = {"weight_map": dict.fromkeys(load_file(source / "model.safetensors"), "model.safetensors")}
(folder / "model.safetensors.index.json").write_text(json.dumps(index))
ea_model.AutoTokenizer = SimpleNamespace(from_pretrained=lambda *_, **__: SimpleNamespace(eos_token_id=None))
prompts = [
    torch.tensor([list(text)]) for text in (b"def main(argv):\n    ", b"import os\nimport sys\n\n", b"class Node:\n    def ")
]

for name, rename in ("as published", lambda name: name), ("renamed", lambda name: name.replace("layers.0.", "midlayer.")):
    (folder / name).mkdir()
    (folder / name / "config.json").write_text((Path(sys.argv[2]) / "config.json").read_text())
    torch.save({rename(name): tensor for name, tensor in head.items()}, folder / name / "pytorch_model.bin")
    model = ea_model.EaModel.from_pretrained(False, str(folder), str(folder / name), 26, 5, 8, torch_dtype=torch.float32).eval()
    runs = [model.eagenerate(prompt, max_new_tokens=100, log=True) for prompt in prompts]
    print(
        f"{name}: {sum(int(new) for _, new, _ in runs) / sum(last + 1 for *_, last in runs):.2f} tokens a target pass", flush=True
    )
