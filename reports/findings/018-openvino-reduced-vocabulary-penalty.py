"""openvino-genai 2026.4.1.0: an EAGLE-3 head with a reduced vocabulary raises with a repetition penalty.

.engines/openvino/bin/python 018-openvino-reduced-vocabulary-penalty.py [seed] [size of the vocabulary]
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
head = {"draft_vocab_size": V // 2, "num_hidden_layers": 1, "architectures": ["LlamaForCausalLMEagle3"]}
for name, make, more in ("head", Head, head), ("target", LlamaForCausalLM, {"num_hidden_layers": 10}):
    torch.manual_seed(SEED)
    model = make(LlamaConfig(max_position_embeddings=512, initializer_range=0.2, **shape, **more)).eval()
    export_from_model(model, output=f"{folder}/{name}", task="text-generation-with-past")
tokenizer, fixed = og.Tokenizer(f"{folder}/target"), {"ignore_eos": True, "eos_token_id": 0, "stop_token_ids": {0}}
prompt = [openvino.Tensor(torch.tensor([[1, 2, V - 1, 1, 2]]).numpy())]  # contains a token without a row in the head
for arm, drafting in ("control", {}), ("chain", {"num_assistant_tokens": 3}):
    drafter = {"draft_model": og.draft_model(f"{folder}/head", "CPU", **f32)} if drafting else {}
    pipe = og.ContinuousBatchingPipeline(f"{folder}/target", tokenizer, og.SchedulerConfig(), "CPU", **f32, **drafter)
    for penalty in 1.0, 1.3, 1.0:
        config = og.GenerationConfig(max_new_tokens=10, **fixed, **drafting, repetition_penalty=penalty)
        try:
            print(f"{arm}, repetition_penalty {penalty}: {pipe.generate(prompt, [config])[0].m_generation_ids[0]}", flush=True)
        except RuntimeError as error:
            print(f"{arm}, repetition_penalty {penalty}: {error}", flush=True)
