"""The objective over scenes: Eq. 4, and the patch readout that helps the encoder on its way."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, LlavaForConditionalGeneration

from dualfocus_training.batches import Batch, Group
from dualfocus_training.objective import IGNORED, TERMS, answer_losses
from dualfocus_training.patches import CELLS, CLASSES

# CLIP's mean and deviation of each channel, as the processor has them.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class SceneLearner(nn.Module):
    """A LLaVA with a linear readout of each projected patch; the readout is not exported."""

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
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
        prefix = self._embed(batch.prefix.expand(batch.rows, -1), features[: batch.rows])
        seen = self._language(prefix, DynamicCache()).past_key_values
        sums = dict.fromkeys(TERMS, features.new_zeros((), dtype=torch.float32))
        used = batch.rows
        for group in batch.groups:
            crops = features[used : used + group.crops]
            hidden = self._continue(seen, group, crops)
            used += group.crops
            losses = answer_losses(hidden, self.model.lm_head, group.targets)
            sums = {name: total + losses[name] for name, total in sums.items()}
        return {name: total / batch.conversations for name, total in sums.items()}

    def _continue(self, seen: DynamicCache, group: Group, crops: Tensor) -> Tensor:
        """(branches, length, text width): states of a group behind its rows' prefixes."""
        behind = DynamicCache()
        for number, layer in enumerate(seen.layers):
            behind.update(layer.keys[group.rows], layer.values[group.rows], number)
        hidden: Tensor = self._language(self._embed(group.tokens, crops), behind).last_hidden_state
        return hidden

    def _embed(self, tokens: Tensor, features: Tensor) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(tokens)
        pictured = (tokens == self.model.config.image_token_id)[..., None]
        return embedded.masked_scatter(pictured, features.to(embedded.dtype))

    def _language(self, embedded: Tensor, cache: DynamicCache) -> Any:
        return self.model.model.language_model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)

    def _patch_losses(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        read = self.readout(features).float()
        parts = read.split([*CLASSES, 4, CELLS], dim=-1)
        labels = batch.classes.long().unbind(-1)
        losses = [_cross_entropy(part, label) for part, label in zip(parts[:-2], labels, strict=True)]
        on_shape = labels[0] > 0
        corners = (parts[-2] - batch.corners)[on_shape].abs().mean()
        return {
            "look": losses[0] + losses[1],
            "decimals": torch.stack(losses[2:10]).mean(),
            "corners": corners,
            "print": losses[10] + losses[11],
            "cover": functional.binary_cross_entropy_with_logits(parts[-1], batch.cover),
        }


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the labels there are; 0 where there are none."""
    total = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)
