"""Models that vLLM 0.32 does not have. The rest of the engine does not import this room: vLLM does."""
