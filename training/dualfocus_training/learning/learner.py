"""The objective over scenes: Eq. 4, and what helps on the way: the patch readout, and pointing."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, LlavaForConditionalGeneration

from dualfocus_training.learning.batches import Batch, Group
from dualfocus_training.learning.objective import IGNORED, TERMS, answer_losses
from dualfocus_training.learning.patches import CELLS, CLASSES, DECIMALS, LOOKS, PRINTS, RANKS
from dualfocus_training.models.decoder import Decoded, run_decoder

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
        nowhere = batch.prefix.new_zeros(used, 0)
        seen = DynamicCache()
        self._decode(batch.prefix, features[:used], seen, batch.before, nowhere)
        sums = dict.fromkeys((*TERMS, "points"), features.new_zeros((), dtype=torch.float32))
        for group in batch.groups:
            losses = self._group_losses(seen, batch.before, group, features[used : used + group.crops])
            used += group.crops
            sums = {name: total + losses[name] for name, total in sums.items()}
        return {name: total / batch.conversations for name, total in sums.items()}

    def _group_losses(self, seen: DynamicCache, before: Tensor, group: Group, crops: Tensor) -> dict[str, Tensor]:
        """The sums over a group's branches, which go on from their rows' prefixes."""
        behind = DynamicCache()
        for number, layer in enumerate(seen.layers):
            behind.update(layer.keys[group.rows], layer.values[group.rows], number)
        known = torch.cat([before[group.rows], torch.ones_like(group.tokens, dtype=torch.bool)], 1)
        asked, there = group.targets.predicting()
        decoded = self._decode(group.tokens, crops, behind, known, asked)
        losses = answer_losses(decoded.states[there], self.model.lm_head, group.targets)
        losses["points"] = _pointing_loss(decoded.attention, group.points)
        return losses

    def _decode(self, tokens: Tensor, pictured: Tensor, cache: DynamicCache, known: Tensor, asked: Tensor) -> Decoded:
        embedded = self.model.get_input_embeddings()(tokens)
        places = (tokens == self.model.config.image_token_id)[..., None]
        embedded = embedded.masked_scatter(places, pictured.to(embedded.dtype))
        return run_decoder(self.model.model.language_model, embedded, cache, known, asked)

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
