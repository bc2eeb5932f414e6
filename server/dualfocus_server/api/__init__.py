"""The endpoints: from a request to a question, from a result to an answer."""
