"""vLLM: started, given prompts, and what DualFocus adds to its scheduler and workers."""
