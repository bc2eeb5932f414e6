"""What a reply is worth, by the rule that each benchmark's published numbers come from."""
