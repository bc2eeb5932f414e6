"""The looks behind the first one: what is cropped for them."""
