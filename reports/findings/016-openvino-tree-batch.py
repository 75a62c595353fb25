"""openvino-genai 2026.4.1.0: EAGLE-3 trees of several texts crash the pipeline.

.engines/openvino/bin/python 016-openvino-tree-batch.py [seed] [size of the vocabulary]
"""

import sys
import tempfile

import openvino
import openvino_genai as og
import torch
from optimum.exporters.openvino.convert import export_from_model
from optimum.exporters.openvino.model_patcher import LlamaEagle3ForCausalLM
from transformers import LlamaConfig, LlamaForCausalLM

Head = type("Head", (LlamaEagle3ForCausalLM,), {"__module__": "__main__"})  # the exporter rejects classes of optimum
SEED, V = (int(value) for value in (*sys.argv[1:], *(0, 32)[len(sys.argv) - 1 :]))
folder, f32 = tempfile.mkdtemp(), {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
shape = {"vocab_size": V, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "eos_token_id": None}
head = {"draft_vocab_size": V, "num_hidden_layers": 1, "architectures": ["LlamaForCausalLMEagle3"]}
for name, make, more in ("head", Head, head), ("target", LlamaForCausalLM, {"num_hidden_layers": 10}):
    torch.manual_seed(SEED)
    model = make(LlamaConfig(max_position_embeddings=512, initializer_range=0.2, **shape, **more)).eval()
    export_from_model(model, output=f"{folder}/{name}", task="text-generation-with-past")
tokenizer, fixed = og.Tokenizer(f"{folder}/target"), {"ignore_eos": True, "eos_token_id": 0, "stop_token_ids": {0}}
chain, tree = {"num_assistant_tokens": 3}, {"num_assistant_tokens": 8, "branching_factor": 3, "tree_depth": 3}
for count in 1, 2, 8:
    prompts = [openvino.Tensor(torch.randint(V, (1, 5)).numpy()) for _ in range(count)]
    for arm, drafting in ("control", {}), ("chain", chain), ("tree", tree):
        drafter = {"draft_model": og.draft_model(f"{folder}/head", "CPU", **f32)} if drafting else {}
        pipe = og.ContinuousBatchingPipeline(f"{folder}/target", tokenizer, og.SchedulerConfig(), "CPU", **f32, **drafter)
        configs = [og.GenerationConfig(max_new_tokens=10 + 10 * i, **fixed, **drafting) for i in range(count)]
        for attempt in "first", "second":
            try:
                lengths = [len(result.m_generation_ids[0]) for result in pipe.generate(prompts, configs)]
                print(f"{arm}, {count} texts, {attempt} call: lengths {lengths}", flush=True)
            except RuntimeError as error:
                print(f"{arm}, {count} texts, {attempt} call: {error}", flush=True)
