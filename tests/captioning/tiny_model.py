"""A vision-language model of some 200,000 weights, built here: LLaVA's architecture from a config, a tokenizer of bytes and
some words, random weights. `speaks`: the language part is made into a Markov chain over whole words that begins, goes on
for 30 words and ends as a JSON caption does, so that what comes out can be used; pictures are still looked at.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from longtake.captioning.prompting import load_prompts
from tests.captioning.server import WORDS

LENGTH, CHOICES = 30, 3  # Words of a caption, and words to choose from at each place.
BEGIN, END, ANSWER = '{"caption": "', '."}', "<|answer|>"
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}{% endfor %}"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}<|answer|>{% endif %}"
)


def build_model(folder: Path, *, speaks: bool) -> Path:
    """The model and its processor, as transformers stores them."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    torch.manual_seed(0)
    places = [word + ending for ending in ("", "s", "side") for word in WORDS][: LENGTH * CHOICES]
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bare.train_from_iterator(load_prompts("longtake", "stepwise").templates.values(), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<|system|>", "<|user|>", ANSWER]})
    tokenizer.add_tokens([BEGIN, END, *(f" {word}" for word in places)])
    ids = tokenizer.get_vocab()
    size = len(ids) + -len(ids) % 8

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
        ),
        text_config=LlamaConfig(
            vocab_size=size, hidden_size=size, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=4, head_dim=64, max_position_embeddings=16_384, tie_word_embeddings=False,
            bos_token_id=ids["<s>"], eos_token_id=ids["</s>"], pad_token_id=ids["<pad>"],
        ),
        image_token_index=ids["<image>"], vision_feature_layer=-1, pad_token_id=ids["<pad>"],
        eos_token_id=ids["</s>"], tie_word_embeddings=False,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    if speaks:
        quotes = [token for text in (': "', ', "part_1": "') for token in tokenizer.encode(text)[-1:]]
        _make_speak(model, [ids[f" {word}"] for word in places], ids, quotes)
    model.generation_config.eos_token_id = ids["</s>"]
    model.generation_config.pad_token_id = ids["<pad>"]
    model.generation_config.do_sample = True
    model.save_pretrained(folder, safe_serialization=True)
    _name_as_published(folder / "model.safetensors")
    pictures = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    processor = LlavaProcessor(
        image_processor=pictures, tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder


def _name_as_published(file: Path) -> None:
    """The names that the weights of LLaVA have on the hub: vLLM reads no others."""
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    tower = "vision_tower."
    inner = f"{tower}vision_model."
    named = {k.replace(tower, inner) if k.startswith(tower) and inner not in k else k: w for k, w in weights.items()}
    save_file(named, file, metadata={"format": "pt"})


def _make_speak(model: Any, words: list[int], ids: dict[str, int], quotes: list[int]) -> None:
    """What comes next depends on the last token alone: its embedding goes unchanged through the blocks. quotes: tokens after
    which a text begins."""
    import torch

    text = model.model.language_model
    with torch.no_grad():
        for layer in text.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        size = text.embed_tokens.weight.shape[0]
        text.embed_tokens.weight.copy_(torch.eye(size))
        head = torch.full((size, size), -1.0)
        rows = [words[i : i + CHOICES] for i in range(0, len(words), CHOICES)]
        steps = [([ids[ANSWER]], [ids[BEGIN]]), ([ids[BEGIN]], rows[0])]
        steps += [*itertools.pairwise(rows), (rows[-1], [ids[END]]), ([ids[END]], [ids["</s>"]])]
        steps.append((list(dict.fromkeys(quotes)), rows[0]))
        for before, after in steps:
            for a in before:
                for b in after:
                    head[b, a] = 1.0
        model.lm_head.weight.copy_(head)


def spoken(text: str) -> bool:
    """Whether a caption is one that this model says: one word of each place, in order."""
    places = [word + ending for ending in ("", "s", "side") for word in WORDS][: LENGTH * CHOICES]
    words = text.removesuffix(".").split()
    return len(words) == LENGTH and all(w in places[CHOICES * i : CHOICES * (i + 1)] for i, w in enumerate(words))
