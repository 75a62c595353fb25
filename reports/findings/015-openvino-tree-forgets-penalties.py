"""openvino-genai 2026.4.1.0: an EAGLE-3 tree ignores penalties, and raises if log-probabilities are requested.

.engines/openvino/bin/python 015-openvino-tree-forgets-penalties.py [seed] [size of the vocabulary]
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
prompts, expected = torch.randint(V, (8, 1, 5)), {}
for arm, drafting in ("control", {}), ("chain", chain), ("tree", tree):
    drafter = {"draft_model": og.draft_model(f"{folder}/head", "CPU", **f32)} if drafting else {}
    pipe = og.ContinuousBatchingPipeline(f"{folder}/target", tokenizer, og.SchedulerConfig(), "CPU", **f32, **drafter)
    for params in {}, {"repetition_penalty": 1.3}, {"presence_penalty": 1.0}, {"frequency_penalty": 0.5}, {"logprobs": 1}:
        config = og.GenerationConfig(max_new_tokens=40, **fixed, **drafting, **params)
        try:
            texts = [pipe.generate([openvino.Tensor(each.numpy())], [config])[0].m_generation_ids[0] for each in prompts]
            expected.setdefault(str(params), texts)  # the control runs first
            same = [sum(a == b for a, b in zip(texts, expected[key], strict=True)) for key in (str(params), "{}")]
            outcome = f"of 8 texts {same[0]} are the control's, {same[1]} the control's without a parameter"
        except RuntimeError as error:
            outcome = str(error)
        print(f"{arm}, {params}: {outcome}", flush=True)
