"""Qwen-VL in plain torch, to train: neither transformers nor vLLM can (its weights' names are the released models')."""
