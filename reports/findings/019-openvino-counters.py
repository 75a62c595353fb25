"""openvino-genai 2026.4.1.0: counters omit the last pass of every text, so more tokens are accepted than drafted.
.engines/openvino/bin/python 019-openvino-counters.py [seed] [size of the vocabulary]"""

import sys
import tempfile

import openvino
import openvino_genai as og
import torch
from optimum.exporters.openvino.convert import export_from_model, export_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED, V = (int(value) for value in (*sys.argv[1:], *(0, 8)[len(sys.argv) - 1 :]))
folder, f32 = tempfile.mkdtemp(), {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "eos_token_id": None}
torch.manual_seed(SEED)
target = LlamaForCausalLM(LlamaConfig(vocab_size=V, max_position_embeddings=512, initializer_range=0.25, **shape)).eval()
export_from_model(target, output=folder, task="text-generation-with-past")
words = Tokenizer(models.WordLevel({str(token): token for token in range(V)}, "0"))  # the engine compares the tokenizers
words.pre_tokenizer, _ = pre_tokenizers.WhitespaceSplit(), words.add_special_tokens(["0"])
export_tokenizer(PreTrainedTokenizerFast(tokenizer_object=words), folder)
drafter, schedule = og.draft_model(folder, "CPU", **f32), og.SchedulerConfig()  # the target is its own drafter
pipe = og.ContinuousBatchingPipeline(folder, og.Tokenizer(folder), schedule, "CPU", **f32, draft_model=drafter)
for new, more in (4, {"do_sample": True}), (4, {}), (41, {}):
    seen, reported = [0, 0], [0, 0, 0]
    for first in range(V):
        prompt = openvino.Tensor(torch.tensor([[first, 1, 2, 3]]).numpy())
        fixed = {"max_new_tokens": new, "ignore_eos": True, "eos_token_id": 0, "stop_token_ids": {0}, "num_assistant_tokens": 3}
        config, sizes = og.GenerationConfig(**fixed, **more, rng_seed=SEED + first), []
        handle = pipe.add_request(1000 * new + first, prompt, config)
        while pipe.has_non_finished_requests():  # tokens emitted by each pass; the prompt's pass is first
            pipe.step()
            sizes.append(sum(len(output.generated_ids) for output in handle.read().values()) if handle.can_read() else 0)
        seen = [seen[0] + len(sizes) - 1, seen[1] + sum(sizes[1:]) - (len(sizes) - 1)]
        metrics = pipe.generate([prompt], [config])[0].extended_perf_metrics
        passes, accepted = len(metrics.main_model_metrics.raw_metrics.m_durations) - 1, metrics.get_num_accepted_tokens()
        reported = [reported[0] + passes, reported[1] + metrics.get_num_draft_tokens(), reported[2] + accepted]
    print(f"{V} texts of {new} tokens, {more}: seen {seen[0]} passes after the prompt's, {seen[1]} accepted;", end=" ")
    print(f"reported {reported[0]} passes, {reported[1]} drafted, {reported[2]} accepted", flush=True)
