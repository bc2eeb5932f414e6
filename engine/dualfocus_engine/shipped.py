"""The model that ships: a LLaVA of five million parameters, trained on drawn scenes (small/README.md)."""

from pathlib import Path

SHIPPED_NAME = "dualfocus-small"
SHIPPED_MODEL = Path(__file__).parent / "small"
