"""What a run is worth: its figures, as tables and plots, beside another run and beside the paper."""
