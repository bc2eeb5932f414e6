"""From recorded answers to figures, goals, tables and plots."""
