"""transformers 5.23.0: universal speculative decoding uses draft probabilities of the wrong tokens."""

import sys
from collections import Counter

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

transformers.utils.logging.set_verbosity_error()


def tokenizer(words):
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def model(vocab, seed):
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=vocab, num_key_value_heads=1, **shape)).eval()
    for weight in made.parameters():
        weight.data *= 8 if weight.ndim == 2 else 1
    made.generation_config = GenerationConfig(pad_token_id=0, num_assistant_tokens=2)
    return made


texts, seed = (int(given) for given in (*sys.argv[1:], *(1000, 1)[len(sys.argv) - 1 :]))
ours, theirs = tokenizer("abcdef"), tokenizer("xcfayebd")  # the assistant has two more words, in another order
target, assistant, prompt = model(6, seed), model(8, seed + 1), torch.tensor([[0, 1, 2]])
law = target(prompt).logits[0, -1].softmax(-1).tolist()
print("order of the assistant's get_vocab():", *theirs.get_vocab(), "\nlaw      ", [round(p, 3) for p in law])
universal = {"assistant_model": assistant, "tokenizer": ours, "assistant_tokenizer": theirs}
for arm, way in (("control", {}), ("universal", universal)):
    ask = {"attention_mask": torch.ones_like(prompt), "do_sample": True, "top_k": 0, "max_new_tokens": 3, **way}
    drawn = Counter(torch.manual_seed(i) and int(target.generate(prompt, **ask)[0, 3]) for i in range(texts))
    tv = sum(abs(drawn[x] / texts - p) for x, p in enumerate(law)) / 2
    print(f"{arm:9}", [round(drawn[x] / texts, 3) for x in range(6)], f"total variation {tv:.3f}")
