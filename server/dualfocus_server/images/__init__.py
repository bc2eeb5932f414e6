"""Images as clients send them: fetched safely, limited per request."""
