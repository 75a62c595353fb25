"""openvino-genai 2026.4.1.0: an EAGLE-3 head receives target states from one layer too late.
.engines/openvino/bin/python 013-openvino-eagle3-layers.py [seed] [size of the vocabulary]"""

import re
import sys
import tempfile

import openvino
import openvino_genai as og
import torch
from optimum.exporters.openvino.convert import export_from_model
from optimum.exporters.openvino.model_patcher import LlamaEagle3ForCausalLM
from transformers import LlamaConfig, LlamaForCausalLM

Head = type("Head", (LlamaEagle3ForCausalLM,), {"__module__": "__main__"})  # the exporter rejects classes of optimum
SEED, V = (int(value) for value in (*sys.argv[1:], *(0, 4)[len(sys.argv) - 1 :]))
folder, f32 = tempfile.mkdtemp(), {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
PROMPTS, NEW, made = torch.tensor([[i % V, 1, 2, i // V] for i in range(12)]), 40, {}
shape = {"vocab_size": V, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "eos_token_id": None}
head = {"draft_vocab_size": V, "num_hidden_layers": 1, "architectures": ["LlamaForCausalLMEagle3"]}
for name, make, more in ("head", Head, head), ("target", LlamaForCausalLM, {"num_hidden_layers": 10}):
    torch.manual_seed(SEED + len(name))
    made[name] = make(LlamaConfig(max_position_embeddings=64, initializer_range=0.3, **shape, **more)).eval()
    export_from_model(made[name], output=f"{folder}/{name}", task="text-generation-with-past")
model = openvino.Core().read_model(f"{folder}/head/openvino_model.xml")
model.set_rt_info([1, 4, 6], "hidden_layers_list")  # the engine's defaults are 2, 5, 7
openvino.save_model(model, f"{folder}/layers_given/openvino_model.xml", compress_to_fp16=False)
made["head"].model.embed_tokens = made["target"].model.embed_tokens  # as the engine does
texts = made["target"].generate(PROMPTS, max_new_tokens=NEW, do_sample=False)
states = made["target"](texts, output_hidden_states=True).hidden_states  # states[i]: before layer i; EAGLE uses 2, 5, 7
for name, arm, layers in ("head", "as it comes", [3, 6, 8]), ("layers_given", "hidden_layers_list 1, 4, 6", [2, 5, 7]):
    drafts = made["head"](texts[:, 1:], torch.cat([states[i] for i in layers], -1)[:, :-1]).logits.argmax(-1)
    right = ["".join(map(str, row)) for row in (drafts[:, 3:-1] == texts[:, 5:]).int().tolist()]  # after the first token
    expected = [1 + len(re.findall("1.?|0", row)) for row in right]  # one draft token per pass: a right one saves the next pass
    drafter, tokenizer = og.draft_model(f"{folder}/{name}", "CPU", **f32), og.Tokenizer(f"{folder}/target")
    pipe = og.ContinuousBatchingPipeline(f"{folder}/target", tokenizer, og.SchedulerConfig(), "CPU", **f32, draft_model=drafter)
    config = og.GenerationConfig(max_new_tokens=NEW, ignore_eos=True, eos_token_id=0, stop_token_ids={0}, num_assistant_tokens=1)
    metrics = [pipe.generate([openvino.Tensor(prompt[None].numpy())], [config])[0].extended_perf_metrics for prompt in PROMPTS]
    passes = [len(text.main_model_metrics.raw_metrics.m_durations) for text in metrics]
    print(f"{NEW} tokens, engine {arm}: passes {passes}\n  head in torch, read before {layers}: {expected}", flush=True)
