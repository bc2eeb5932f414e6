"""Learning: conversations packed into batches, the objective, and the learners."""
