"""LLaVA's later models."""
