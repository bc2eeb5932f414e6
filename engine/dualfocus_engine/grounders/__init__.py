"""Grounders: what says where to look in the place of the model's own grounding turn (Appendix E)."""
