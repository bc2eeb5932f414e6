"""What a machine with a GPU is asked to show in minutes: `make gpu-check`."""
