"""The forward pass of the small model's decoder as it is trained: what vLLM computes, with less work.

Most tokens of a conversation are pictures and questions, which are given. Of them the last layer's keys and values are
read and nothing else: its queries and feed-forward part are computed where an answer is predicted. Attention is
written out, since the middle layer's is looked at, with few passes over the scores, which are what costs on a CPU.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer, LlamaModel, rotate_half


class Decoded(NamedTuple):
    """`states`: (sequences, asked, width), what the head makes logits of; `attention`: the middle layer's, of all
    tokens, (sequences, heads, length, length of all).
    """

    states: Tensor
    attention: Tensor


class _Tokens(NamedTuple):
    """Some tokens of each sequence as a layer takes them.

    `hidden`: (sequences, tokens, width); `mask`: (sequences, 1, tokens, length of all), 0 where a token sees another;
    `cosines` and `sines` of their places: (sequences or 1, tokens, head's width).
    """

    hidden: Tensor
    mask: Tensor
    cosines: Tensor
    sines: Tensor

    def at(self, asked: Tensor) -> "_Tokens":
        """Those at some places, (sequences, asked)."""
        hidden = self.hidden.gather(1, asked[..., None].expand(-1, -1, self.hidden.shape[-1]))
        mask = self.mask.gather(2, asked[:, None, :, None].expand(-1, -1, -1, self.mask.shape[-1]))
        return _Tokens(hidden, mask, self.cosines[0, asked], self.sines[0, asked])


def run_decoder(language: LlamaModel, embedded: Tensor, cache: DynamicCache, known: Tensor, asked: Tensor) -> Decoded:
    """Go on behind a cache, which gets the keys and values of each layer.

    `embedded`: (sequences, length, width); `known`: (sequences, length of all), False where a prefix is padded on
    the left, which moves its places and rotary embeddings do not tell apart; `asked`: (sequences, asked), the tokens
    whose states are wanted.
    """
    tokens, attentions = _tokens(language, embedded, cache, known), []
    *layers, last = language.layers
    for layer in layers:
        hidden, attention = _through(layer, tokens, tokens, cache)
        tokens = tokens._replace(hidden=hidden)
        attentions.append(attention)
    states, _ = _through(last, tokens, tokens.at(asked), cache)
    return Decoded(language.norm(states), attentions[len(language.layers) // 2])


def _tokens(language: LlamaModel, embedded: Tensor, cache: DynamicCache, known: Tensor) -> _Tokens:
    start, length = cache.get_seq_length(), embedded.shape[1]
    device = embedded.device
    places = torch.arange(start, start + length, device=device)
    seen = (torch.arange(start + length, device=device) <= places[:, None]) & known[:, None, None]
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else embedded.dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)
    cosines, sines = language.rotary_emb(mask, position_ids=places[None])
    return _Tokens(embedded, mask, cosines, sines)


def _through(layer: LlamaDecoderLayer, tokens: _Tokens, asked: _Tokens, cache: DynamicCache) -> tuple[Tensor, Tensor]:
    """States of the tokens that are asked for, which see all; and their attention."""
    attention, norm = layer.self_attn, layer.input_layernorm
    normed = norm(tokens.hidden).to(tokens.mask.dtype)
    keys = _rotated(_heads(attention, attention.k_proj(normed)), tokens)
    keys, values = cache.update(keys, _heads(attention, attention.v_proj(normed)), attention.layer_idx)
    queries = normed if asked is tokens else norm(asked.hidden).to(asked.mask.dtype)
    queries = _rotated(_heads(attention, attention.q_proj(queries)), asked) * attention.scaling
    weights = torch.softmax(queries @ keys.transpose(2, 3) + asked.mask, -1)
    hidden = asked.hidden + attention.o_proj((weights @ values).transpose(1, 2).flatten(2))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden).to(asked.mask.dtype)), weights


def _heads(attention: LlamaAttention, projected: Tensor) -> Tensor:
    """(sequences, heads, length, head's width)."""
    return projected.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)


def _rotated(heads: Tensor, tokens: _Tokens) -> Tensor:
    """Queries or keys with the rotary embeddings of their places."""
    rotated: Tensor = heads * tokens.cosines[:, None] + rotate_half(heads) * tokens.sines[:, None]
    return rotated
