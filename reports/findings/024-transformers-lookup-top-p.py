"""transformers 5.23.0: with `top_p`, prompt lookup never drafts a share of 1 − top_p of the vocabulary."""

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)
VOCAB = 64
torch.manual_seed(0)
shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
target = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, bos_token_id=None, eos_token_id=None, **shape)).eval()
target.generation_config = GenerationConfig(pad_token_id=0)
get_candidates, drafted = PromptLookupCandidateGenerator.get_candidates, []


def recording_get_candidates(self, text, **more):
    candidates, logits = get_candidates(self, text, **more)
    drafted.append(candidates[0, text.shape[1] :].tolist())
    return candidates, logits


PromptLookupCandidateGenerator.get_candidates = recording_get_candidates
for top_p in (1.0, 0.9, 0.7, 0.5):
    drafts = {}
    for last in range(VOCAB):  # every token twice, so that the prompt contains a continuation of `last`
        prompt = torch.roll(torch.arange(VOCAB), -last - 1).repeat(2)[None]
        torch.manual_seed(last)
        options = {"prompt_lookup_num_tokens": 1, "max_matching_ngram_size": 1, "top_p": top_p, "top_k": 0}
        target.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=True, max_new_tokens=2, **options)
        drafts[(last + 1) % VOCAB] = bool(drafted[0])
        drafted.clear()
    without = [token for token, was_drafted in drafts.items() if not was_drafted]
    print(f"top_p {top_p}: {len(without)} of {VOCAB} tokens are never drafted, the last of them {max(without, default=None)}")
