"""openvino-genai 2026.4.1.0: an EAGLE-3 head is given the target's states one layer too late.

.engines/openvino/bin/python 013-openvino-eagle3-layers.py [seed] [size of the vocabulary]
"""

import sys
import tempfile
from pathlib import Path

import numpy
import openvino
import openvino_genai as og
import torch
from optimum.exporters.openvino.convert import export_from_model
from optimum.exporters.openvino.model_patcher import LlamaEagle3ForCausalLM
from transformers import LlamaConfig, LlamaForCausalLM

# not of a module of optimum, of whose classes the exporter does not know the library
Head = type("Head", (LlamaEagle3ForCausalLM,), {"__module__": "__main__"})
SEED, V = (int(value) for value in (*sys.argv[1:], *(0, 4)[len(sys.argv) - 1 :]))
PROMPTS, NEW, folder, made = [[i % V, 1, 2, i // V] for i in range(12)], 40, tempfile.mkdtemp(), {}
shape = {"vocab_size": V, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "eos_token_id": None}
for name, make, more in (
    ("head", Head, {"draft_vocab_size": V, "num_hidden_layers": 1, "architectures": ["LlamaForCausalLMEagle3"]}),
    ("target", LlamaForCausalLM, {"num_hidden_layers": 10}),
):
    torch.manual_seed(SEED + len(name))
    made[name] = make(LlamaConfig(max_position_embeddings=64, initializer_range=0.3, **shape, **more)).eval()
made["head"].model.embed_tokens.weight.data.copy_(made["target"].model.embed_tokens.weight)  # as the engine does
due: dict[str, list[int]] = {"2, 5, 7, as in EAGLE's code": [], "3, 6, 8": []}
for prompt in PROMPTS:
    with torch.no_grad():
        asked = torch.tensor([prompt])
        text = made["target"].generate(asked, attention_mask=torch.ones_like(asked), max_new_tokens=NEW, do_sample=False)
        states = made["target"](text, output_hidden_states=True).hidden_states  # states[i]: before layer i
        for passes, layers in zip(due.values(), ([2, 5, 7], [3, 6, 8]), strict=True):
            draft = made["head"](text[:, 1:], torch.cat([states[i] for i in layers], -1)[:, :-1]).logits[0].argmax(-1)
            at, _ = len(prompt), passes.append(1)
            while at < len(prompt) + NEW - 1:  # one drafted token a pass
                at, passes[-1] = at + 1 + int(draft[at - 1] in text[0, at + 1 : at + 2]), passes[-1] + 1
for name, model in made.items():  # last: it leaves its marks on a model
    export_from_model(model, output=f"{folder}/{name}", task="text-generation-with-past")
Path(folder, "told").mkdir()
model = openvino.Core().read_model(f"{folder}/head/openvino_model.xml")
model.set_rt_info([1, 4, 6], "hidden_layers_list")  # instead of the engine's own 2, 5, 7
openvino.save_model(model, f"{folder}/told/openvino_model.xml", compress_to_fp16=False)
f32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
for name, passes in due.items():
    print(f"passes for each text of {NEW} tokens, if the head reads the states before layers {name}: {passes}")
for arm, head in ("as it comes", "head"), ("hidden_layers_list 1, 4, 6", "told"):
    drafter, tokenizer, passes = og.draft_model(f"{folder}/{head}", "CPU", **f32), og.Tokenizer(f"{folder}/target"), []
    pipe = og.ContinuousBatchingPipeline(f"{folder}/target", tokenizer, og.SchedulerConfig(), "CPU", **f32, draft_model=drafter)
    for request, prompt in enumerate(PROMPTS):
        fixed = {"max_new_tokens": NEW, "ignore_eos": True, "eos_token_id": 0, "stop_token_ids": {0}, "num_assistant_tokens": 1}
        handle = pipe.add_request(request, openvino.Tensor(numpy.array([prompt])), og.GenerationConfig(**fixed))
        passes.append(0)
        while pipe.has_non_finished_requests():
            pipe.step()
            passes[-1] += 1
    print(f"the engine, {arm}: {passes}", flush=True)
