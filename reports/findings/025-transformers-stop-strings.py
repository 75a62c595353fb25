"""transformers 5.23.0: speculation misses `stop_strings` inside a block, and raises with an assistant."""

from string import ascii_lowercase as letters

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

transformers.utils.logging.set_verbosity_error()
made = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)

torch.manual_seed(0)  # recites the alphabet: the layers add nothing, the output is the next letter
shape = {"hidden_size": 64, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
target = LlamaForCausalLM(LlamaConfig(vocab_size=26, tie_word_embeddings=False, **shape)).eval()
for layer in target.model.layers:
    layer.self_attn.o_proj.weight.data.zero_(), layer.mlp.down_proj.weight.data.zero_()
target.lm_head.weight.data = target.model.embed_tokens.weight.data.roll(1, 0)
target.generation_config = GenerationConfig(pad_token_id=0)

ways = {"control": {}, "prompt lookup": {"prompt_lookup_num_tokens": 4}, "early exit": {"assistant_early_exit": 1}}
for end in (3, 4, 5, 6):
    for name, way in ways.items():
        lengths = []
        for start in range(26):
            text = (letters[start:] + letters[:start]) * 2
            prompt, stop = torch.tensor([tokenizer(text)["input_ids"]]), text[end - 2 : end]
            ask = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 20, "tokenizer": tokenizer}
            try:
                lengths.append(len(target.generate(prompt, stop_strings=[stop], **ask, **way)[0]) - len(text))
            except ValueError as error:
                lengths.append(type(error).__name__)
        print(f"the stop string ends with new token {end}; {name:14} ends after {sorted(set(map(str, lengths)))} tokens")
