"""A tiny random chat model with a tokenizer trained on the spot, in well under a second; the same bytes each time."""

from pathlib import Path
from typing import Any, Literal

Family = Literal["llama", "qwen2", "gemma2"]

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = ["Solve the problem. What is 12 plus 7? Answer: 19", "system user assistant yes no true false red green blue"]


def make_tiny_model(folder: Path, family: Family = "llama", template: str = TEMPLATE, head_size: int = 8) -> Path:
    """Writes config, random weights, tokenizer and chat template; ends turns and pads with one token.

    vLLM on a CPU takes heads of 32 and more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(template)
    tokenizer.save_pretrained(folder)
    make_model(family, len(tokenizer), head_size).save_pretrained(folder)
    return folder


def make_tokenizer(template: str = TEMPLATE) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=template,
    )


def make_model(family: Family, vocabulary: int, head_size: int = 8) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, Qwen2Config

    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 4 * head_size,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "initializer_range": 0.2,
    }
    configs = {
        "llama": lambda: LlamaConfig(**sizes, tie_word_embeddings=False),
        "qwen2": lambda: Qwen2Config(**sizes, tie_word_embeddings=True),
        "gemma2": lambda: Gemma2Config(
            **sizes, head_dim=head_size, query_pre_attn_scalar=8, final_logit_softcapping=2.0
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(configs[family](), dtype=torch.float32)
