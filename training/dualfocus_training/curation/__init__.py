"""Visual Genome's questions and regions as two-round conversations (Section 3.2)."""
