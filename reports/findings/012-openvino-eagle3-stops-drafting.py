"""openvino-genai 2026.4.1.0: EAGLE-3 with do_sample stops drafting permanently without a warning.

.engines/openvino/bin/python 012-openvino-eagle3-stops-drafting.py [seed] [size of the vocabulary]
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

# the exporter does not recognise classes of a module of optimum
Head = type("Head", (LlamaEagle3ForCausalLM,), {"__module__": "__main__"})
SEED, V = (int(value) for value in (*sys.argv[1:], *(0, 8)[len(sys.argv) - 1 :]))
PROMPT, NEW, folder = openvino.Tensor(numpy.array([[1, 2, 3, 1, 2]])), 20, tempfile.mkdtemp()
shape = {"vocab_size": V, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "eos_token_id": None}
for name, make, more in (
    ("head", Head, {"draft_vocab_size": V, "num_hidden_layers": 1, "architectures": ["LlamaForCausalLMEagle3"]}),
    ("target", LlamaForCausalLM, {"num_hidden_layers": 10}),
):
    torch.manual_seed(SEED)
    model = make(LlamaConfig(max_position_embeddings=64, initializer_range=0.2, **shape, **more)).eval()
    export_from_model(model, output=f"{folder}/{name}", task="text-generation-with-past")
fixed = {"do_sample": True, "max_new_tokens": NEW, "ignore_eos": True, "eos_token_id": 0, "stop_token_ids": {0}}
for arm in "one number, as generate() gives", "a number of its own":
    head, tokenizer = og.draft_model(f"{folder}/head", "CPU"), og.Tokenizer(f"{folder}/target")
    pipe, passes = og.ContinuousBatchingPipeline(f"{folder}/target", tokenizer, og.SchedulerConfig(), "CPU", draft_model=head), []
    for text in range(40):
        config = og.GenerationConfig(**fixed, num_assistant_tokens=3, rng_seed=1000 * SEED + text)
        handle = pipe.add_request(0 if arm.startswith("one") else text, PROMPT, config)
        passes.append(0)
        while pipe.has_non_finished_requests():
            pipe.step()
            passes[-1] += 1
    print(f"{arm}: passes for {NEW} tokens, text by text: {passes}", flush=True)
