"""Names of weights: LLaVA's own, and those that both vLLM and transformers load (from before transformers 4.52)."""

# What closes a row of LLaVA-1.6's patches.
NEWLINE = "image_newline"
_PREFIXES = {
    "model.vision_tower.vision_tower.vision_model.": "vision_tower.vision_model.",
    "model.mm_projector.0.": "multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "multi_modal_projector.linear_2.",
    "model.image_newline": NEWLINE,
    "model.embed_tokens.": "language_model.model.embed_tokens.",
    "model.layers.": "language_model.model.layers.",
    "model.norm.": "language_model.model.norm.",
    "lm_head.": "language_model.lm_head.",
}
# Reckoned from the configuration by every loader.
_DROPPED = ("rotary_emb.inv_freq", "embeddings.position_ids")

TOWER = "vision_tower.vision_model."
PER_TOKEN = ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight")


def from_original(name: str) -> str | None:
    """Return the published name of one of LLaVA's weights; None for what is left out. Raises KeyError."""
    if name.endswith(_DROPPED):
        return None
    for prefix, published in _PREFIXES.items():
        if name.startswith(prefix):
            return published + name.removeprefix(prefix)
    raise KeyError(name)


def from_clip(name: str) -> str | None:
    """Return the published name of a weight of a CLIP model; None for what is no part of its vision tower."""
    if not name.startswith("vision_model.") or name.endswith(_DROPPED):
        return None
    return "vision_tower." + name


def from_transformers(name: str) -> str:
    """Return the published name of a weight of transformers' LLaVA."""
    name = name.removeprefix("model.")
    if name.startswith("vision_tower.") and not name.startswith(TOWER):
        return name.replace("vision_tower.", TOWER, 1)
    if name.startswith("language_model."):
        return name.replace("language_model.", "language_model.model.", 1)
    return f"language_model.{name}" if name.startswith("lm_head.") else name
