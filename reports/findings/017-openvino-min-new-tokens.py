"""openvino-genai 2026.4.1.0: with speculation, texts end before min_new_tokens.

.engines/openvino/bin/python 017-openvino-min-new-tokens.py [seed] [size of the vocabulary]
"""

import sys
import tempfile

import numpy
import openvino
import openvino_genai as og
import torch
from optimum.exporters.openvino.convert import export_from_model, export_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED, V = (int(value) for value in (*sys.argv[1:], *(0, 8)[len(sys.argv) - 1 :]))
folder = tempfile.mkdtemp()
shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "eos_token_id": None}
words = Tokenizer(models.WordLevel({str(token): token for token in range(V)}, "0"))  # the engine compares the tokenizers
words.pre_tokenizer, _ = pre_tokenizers.WhitespaceSplit(), words.add_special_tokens(["0"])
for name in "draft", "target":
    torch.manual_seed(SEED + len(name))
    model = LlamaForCausalLM(LlamaConfig(vocab_size=V, max_position_embeddings=512, initializer_range=0.25, **shape)).eval()
    export_from_model(model, output=f"{folder}/{name}", task="text-generation-with-past")
    export_tokenizer(PreTrainedTokenizerFast(tokenizer_object=words), f"{folder}/{name}")
f32 = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
draft = {"draft_model": og.draft_model(f"{folder}/draft", "CPU", **f32)}
for arm, speculation in ("control", {}), ("draft model", draft), ("prompt lookup", {"prompt_lookup": True}):
    pipe = og.ContinuousBatchingPipeline(
        f"{folder}/target", og.Tokenizer(f"{folder}/target"), og.SchedulerConfig(), "CPU", **f32, **speculation
    )
    lengths = []
    for first in range(V):
        fixed = {"max_new_tokens": 40, "min_new_tokens": 20, "do_sample": True, "rng_seed": SEED + first}
        config = og.GenerationConfig(**fixed, eos_token_id=0, stop_token_ids=set(range(0, V, 2)))
        config.num_assistant_tokens, config.max_ngram_size = 3 if speculation else 0, 3 if arm == "prompt lookup" else 0
        (result,) = pipe.generate([openvino.Tensor(numpy.array([[first, 1, 2, 1, 2]]))], [config])
        lengths.append(len(result.m_generation_ids[0]))
    print(f"{arm}: min_new_tokens 20, lengths {lengths}, too short {sum(length < 20 for length in lengths)}", flush=True)
