"""vLLM's own servings: they answer what two looks do not, and their parsers read what two looks say."""
