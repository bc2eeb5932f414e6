"""The method: the turns of a question, perplexity, and the choice between two answers. Knows no vLLM."""
