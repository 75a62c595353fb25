"""openvino-genai 2026.4.1.0: with an EAGLE-3 tree penalties are forgotten, and log-probabilities end it.

.engines/openvino/bin/python 015-openvino-tree-forgets-penalties.py [seed] [size of the vocabulary]
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
    ("head", Head, {"draft_vocab_size": V, "num_hidden_layers": 1, "architectures": ["LlamaForCausalLMEagle3"]}),
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


prompts = torch.randint(V, (8, 5)).tolist()
due: list[list[int]] = []
without: list[list[int]] = []
pipes = {arm: (opened(drafting), drafting) for arm, drafting in (("control", {}), ("chain", chain), ("tree", tree))}
for asked in {}, {"repetition_penalty": 1.3}, {"presence_penalty": 1.0}, {"frequency_penalty": 0.5}, {"logprobs": 1}:
    for arm, (pipe, drafting) in pipes.items():
        config = og.GenerationConfig(max_new_tokens=40, **fixed, **drafting, **asked)
        try:
            results = [pipe.generate([openvino.Tensor(numpy.array([prompt]))], [config])[0] for prompt in prompts]
        except RuntimeError as error:
            print(f"{arm}, {asked}: {error}")
            continue
        texts = [result.m_generation_ids[0] for result in results]
        without = without if asked else texts
        due = texts if arm == "control" else due
        same = [sum(a == b for a, b in zip(texts, others, strict=True)) for others in (due, without)]
        print(f"{arm}, {asked}: of 8 texts {same[0]} are the control's, {same[1]} the control's with nothing asked", flush=True)
