"""The machine: vLLM's settings on it, its cores, threads for pictures."""
