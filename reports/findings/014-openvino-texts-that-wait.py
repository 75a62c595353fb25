"""openvino-genai 2026.4.1.0: queued requests produce wrong tokens or crash the pipeline.
.engines/openvino/bin/python 014-openvino-texts-that-wait.py [seed] [size of the vocabulary]"""

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
for count, length, new in (6, 100, 12), (100, 10, 12), (120, 3, 4):
    prompts = torch.randint(V, (count, length))
    expected = target.generate(prompts, max_new_tokens=new, do_sample=False)[:, length:].tolist()
    for limit in 256, 16384:  # 256 is the default of both
        draft, schedule = {"draft_model": og.draft_model(folder, "CPU", **f32)}, og.SchedulerConfig()  # drafts for itself
        schedule.max_num_batched_tokens = schedule.max_num_seqs = limit
        for arm, speculation in ("control", {}), ("draft model", draft), ("prompt lookup", {"prompt_lookup": True}):
            pipe = og.ContinuousBatchingPipeline(folder, og.Tokenizer(folder), schedule, "CPU", **f32, **speculation)
            config = og.GenerationConfig(max_new_tokens=new, ignore_eos=True, eos_token_id=0, stop_token_ids={0})
            config.num_assistant_tokens, config.max_ngram_size = 3 if speculation else 0, 3 if arm == "prompt lookup" else 0
            try:
                results = pipe.generate([openvino.Tensor(prompt[None].numpy()) for prompt in prompts], [config] * count)
                wrong = [i for i, result in enumerate(results) if result.m_generation_ids[0] != expected[i]]
                example = f", for example {results[wrong[0]].m_generation_ids[0]}, expected {expected[wrong[0]]}" if wrong else ""
                outcome = f"wrong requests {wrong}{example}"
            except RuntimeError as error:
                outcome = str(error)
            print(f"{arm}, {count} prompts of {length}, {new} new tokens, at most {limit} tokens per pass: {outcome}", flush=True)
