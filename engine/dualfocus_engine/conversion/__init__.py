"""From LLaVA's original checkpoints to folders that vLLM and transformers load: `dualfocus convert`."""
