"""Asking a benchmark's questions of a server, and keeping what it says."""
