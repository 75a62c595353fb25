"""openvino-genai 2026.4.1.0: an EAGLE-3 head of a smaller vocabulary and a repetition penalty end in an error.

.engines/openvino/bin/python 018-openvino-reduced-vocabulary-penalty.py [seed] [size of the vocabulary]
"""

import sys
import tempfile

import numpy
import openvino
import openvino_genai as og
import torch
from optimum.exporters.openvino.convert import export_from_model
from optimum.exporters.openvino.model_patcher import LlamaEagle3ForCausalLM
from transformers import LlamaConfig, LlamaForCausalLM

# not of a module of optimum, of whose classes the exporter does not know the library
Head = type("Head", (LlamaEagle3ForCausalLM,), {"__module__": "__main__"})
SEED, V = (int(value) for value in (*sys.argv[1:], *(0, 32)[len(sys.argv) - 1 :]))
folder, made = tempfile.mkdtemp(), {}
shape = {"vocab_size": V, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "eos_token_id": None}
for name, make, more in (
    ("head", Head, {"draft_vocab_size": V // 2, "num_hidden_layers": 1, "architectures": ["LlamaForCausalLMEagle3"]}),
    ("target", LlamaForCausalLM, {"num_hidden_layers": 10}),
):
    torch.manual_seed(SEED)
    made[name] = make(LlamaConfig(max_position_embeddings=512, initializer_range=0.2, **shape, **more)).eval()
    export_from_model(made[name], output=f"{folder}/{name}", task="text-generation-with-past")
f32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
tokenizer, fixed = og.Tokenizer(f"{folder}/target"), {"ignore_eos": True, "eos_token_id": 0, "stop_token_ids": {0}}
tree, chain = {"num_assistant_tokens": 8, "branching_factor": 3, "tree_depth": 3}, {"num_assistant_tokens": 3}


def opened(speculation):
    drafter = {"draft_model": og.draft_model(f"{folder}/head", "CPU", **f32)} if speculation else {}
    return og.ContinuousBatchingPipeline(f"{folder}/target", tokenizer, og.SchedulerConfig(), "CPU", **f32, **drafter)


prompt = [openvino.Tensor(numpy.array([[1, 2, V - 1, 1, 2]]))]  # with a token that the head has no row for
for arm, drafting in ("control", {}), ("chain", chain):
    pipe = opened(drafting)
    for penalty in 1.0, 1.3, 1.0:
        config = og.GenerationConfig(max_new_tokens=10, **fixed, **drafting, repetition_penalty=penalty)
        try:
            print(f"{arm}, repetition_penalty {penalty}: {pipe.generate(prompt, [config])[0].m_generation_ids[0]}", flush=True)
        except RuntimeError as error:
            print(f"{arm}, repetition_penalty {penalty}: {error}", flush=True)
