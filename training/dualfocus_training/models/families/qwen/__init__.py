"""Qwen's vision-language models."""
