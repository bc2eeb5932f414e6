"""From a request to its answer: by two looks where it asks about an image, by vLLM otherwise."""
