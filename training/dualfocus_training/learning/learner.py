"""The objective over scenes: Eq. 4, and what helps on the way: the patch readout, and pointing."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, LlavaForConditionalGeneration

from dualfocus_training.learning.batches import Batch, Group
from dualfocus_training.learning.objective import IGNORED, TERMS, answer_losses
from dualfocus_training.learning.patches import CELLS, CLASSES, DECIMALS, LOOKS, PRINTS, RANKS

# CLIP's mean and deviation of each channel, as the processor has them.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


# Pointing is taught to this share of the heads of the language model's middle layer.
_POINTING_SHARE = 3
_LEAST_MASS = 1e-4


class SceneLearner(nn.Module):
    """A LLaVA with a linear readout of each projected patch; the readout is not exported."""

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        # Pointing needs the attention itself; and on a CPU fused attention is slower on sequences this short.
        model.set_attn_implementation("eager")
        self.readout = nn.Linear(model.config.text_config.hidden_size, sum(CLASSES) + 4 + CELLS)
        self.register_buffer("mean", 255 * torch.tensor(_MEAN), persistent=False)
        self.register_buffer("deviation", 255 * torch.tensor(_DEVIATION), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch by name: those of the patches, and Eq. 4 where there are words."""
        features = self.features(batch.pictures)
        losses = self._patch_losses(features, batch)
        if batch.conversations:
            losses |= self._word_losses(features.detach() if batch.apart else features, batch)
        return losses

    def features(self, pictures: Tensor) -> Tensor:
        """(pictures, patches², text width): what the language model is given for each patch."""
        tower = self.model.model.vision_tower
        seen = tower(self.normalised(pictures)).last_hidden_state[:, 1:]
        projected: Tensor = self.model.model.multi_modal_projector(seen)
        return projected

    def normalised(self, pictures: Tensor) -> Tensor:
        """Bytes (pictures, side, side, 3) as the encoder's input (pictures, 3, side, side)."""
        pixels: Tensor = (pictures.float() - self.mean) / self.deviation
        return pixels.permute(0, 3, 1, 2)

    def _word_losses(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Eq. 4: the prefix is computed once for each row, branches go on from its keys and values."""
        used = len(batch.prefix)
        prefix = self._embed(batch.prefix, features[:used])
        seen = self._language(prefix, DynamicCache(), batch.before).past_key_values
        sums = dict.fromkeys((*TERMS, "points"), features.new_zeros((), dtype=torch.float32))
        for group in batch.groups:
            crops = features[used : used + group.crops]
            hidden, attention = self._continue(seen, batch.before, group, crops)
            used += group.crops
            losses = answer_losses(hidden, self.model.lm_head, group.targets)
            losses["points"] = _pointing_loss(attention, group.points)
            sums = {name: total + losses[name] for name, total in sums.items()}
        return {name: total / batch.conversations for name, total in sums.items()}

    def _continue(self, seen: DynamicCache, before: Tensor, group: Group, crops: Tensor) -> tuple[Tensor, Tensor]:
        """States of a group behind its rows' prefixes, and the middle layer's attention.

        (branches, length, text width) and (branches, heads, length, prefix + length).
        """
        behind = DynamicCache()
        for number, layer in enumerate(seen.layers):
            behind.update(layer.keys[group.rows], layer.values[group.rows], number)
        known = torch.cat([before[group.rows], torch.ones_like(group.tokens, dtype=torch.bool)], 1)
        read = self._language(self._embed(group.tokens, crops), behind, known, output_attentions=True)
        return read.last_hidden_state, read.attentions[len(read.attentions) // 2]

    def _embed(self, tokens: Tensor, features: Tensor) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(tokens)
        pictured = (tokens == self.model.config.image_token_id)[..., None]
        return embedded.masked_scatter(pictured, features.to(embedded.dtype))

    def _language(self, embedded: Tensor, cache: DynamicCache, known: Tensor, **more: bool) -> Any:
        """The language model behind a cache; `known` (sequences, length of all) is False where a prefix is padded.

        A prefix that is padded on the left has its places moved, which rotary embeddings do not tell apart.
        """
        return self.model.model.language_model(
            inputs_embeds=embedded, attention_mask=known, past_key_values=cache, use_cache=True, **more
        )

    def _patch_losses(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        read = self.readout(features).float()
        parts = read.split([*CLASSES, 4, CELLS], dim=-1)
        labels = batch.classes.long().unbind(-1)
        losses = [_cross_entropy(part, label) for part, label in zip(parts[:-2], labels, strict=True)]
        on_shape = labels[0] > 0
        corners = (parts[-2] - batch.corners)[on_shape].abs().mean()
        return {
            "look": torch.stack(losses[LOOKS]).sum(),
            "decimals": torch.stack(losses[DECIMALS]).mean(),
            "corners": corners,
            "print": torch.stack(losses[PRINTS]).sum(),
            "ranks": torch.stack(losses[RANKS]).mean(),
            "cover": functional.binary_cross_entropy_with_logits(parts[-1], batch.cover),
        }


def _pointing_loss(attention: Tensor, points: Tensor) -> Tensor:
    """The sum over branches of how little of the pointing heads' attention lies where it is to lie.

    Each branch's mean over its tokens of -log(share); 0 for those that are read from nowhere in particular.
    """
    heads = max(1, attention.shape[1] // _POINTING_SHARE)
    mass = (attention[:, :heads].float() * points[:, None]).sum(-1).mean(1)
    taught = points.any(-1)
    each = -mass.clamp(min=_LEAST_MASS).log() * taught
    return (each.sum(-1) / taught.sum(-1).clamp(min=1)).sum()


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labels there are; 0 where there are none."""
    total = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)
