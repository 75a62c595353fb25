"""transformers 5.23.0: universal speculative decoding raises if the target knows all tokens of the assistant."""

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

transformers.utils.logging.set_verbosity_error()


def tokenizer(words):
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def model(vocab):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab, bos_token_id=None, eos_token_id=None, **shape)).eval()


prompt = torch.tensor([[0, 1, 2]])
for words in ("abcd", "abcdx"):
    way = {"assistant_model": model(len(words)), "tokenizer": tokenizer("abcdef"), "assistant_tokenizer": tokenizer(words)}
    for sampled in (False, True):
        ask = {"attention_mask": torch.ones_like(prompt), "do_sample": sampled, "max_new_tokens": 4}
        try:
            seen = model(6).generate(prompt, **ask, **way)[0, 3:].tolist()
        except AttributeError as error:
            seen = f"AttributeError: {error}"
        print(f"assistant's words {words:6} do_sample={sampled!s:6} {seen}")
