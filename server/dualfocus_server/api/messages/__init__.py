"""Anthropic's Messages API: read as chat completions by vLLM's own conversion, and answered as those are."""
