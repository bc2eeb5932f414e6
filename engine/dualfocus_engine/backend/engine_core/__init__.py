"""What vLLM runs of ours in its own processes: beside the scheduler, and in the workers."""
