"""Google's: Gemma."""
