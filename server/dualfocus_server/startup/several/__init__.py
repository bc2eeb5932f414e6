"""Several processes that answer requests before one engine (`--api-server-count`), and what they share."""
