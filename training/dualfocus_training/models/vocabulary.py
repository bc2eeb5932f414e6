"""The small model's tokenizer: bytes, whole words of the scenes, and numbers digit by digit.

Any UTF-8 text encodes: what is no word of the vocabulary falls apart into bytes. A box takes 13
tokens, since its brackets, commas and leading "0." are one token each, and its decimals one each; so does each further
box of a list.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

BEGIN, END, PAD, IMAGE = "<s>", "</s>", "<pad>", "<image>"
SPECIAL = (BEGIN, END, PAD, IMAGE)

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- ' ASSISTANT: ' -}}
{%- elif message['role'] == 'user' -%}
{{- 'USER: ' -}}
{%- endif -%}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}
{{- '<image>\\n' -}}
{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- endfor -%}
{%- endif -%}
{%- if message['role'] == 'assistant' -%}
{{- eos_token -}}
{%- elif message['role'] == 'system' -%}
{{- ' ' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- ' ASSISTANT: ' -}}
{%- endif -%}
"""


def build_tokenizer(phrases: Iterable[str], texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary is bytes, the whole `phrases`, and every word of `texts`.

    Phrases are the fixed wording around a question (roles, Q1, Q2): one token each.
    """
    whole = list(phrases)
    splitter = _splitter(whole)
    words = {piece for text in (*whole, *texts) for piece, _ in splitter.pre_tokenize_str(text)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [*SPECIAL, *alphabet, *sorted(words - set(alphabet))]
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    # With `ignore_merges` a piece that is in the vocabulary is one token and needs no merges.
    tokenizer = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in SPECIAL])
    return _wrapped(tokenizer)


def _splitter(phrases: list[str]) -> pre_tokenizers.PreTokenizer:
    pieces = [*(_escaped(phrase) for phrase in phrases), r"\[[01]\.", r", \[?[01]\.", r"\d"]
    pattern = "|".join([*pieces, r" ?\p{L}+", r" ?[^\s\p{L}\d]", r"\s"])
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _escaped(phrase: str) -> str:
    return "".join(rf"\{letter}" if letter in r"\.[]{}()*+?|^$" else letter for letter in phrase)


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        extra_special_tokens={"image_token": IMAGE},
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
