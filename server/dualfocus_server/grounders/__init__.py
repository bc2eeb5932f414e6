"""Grounders that are asked over HTTP, and which one `--grounder` names (docs/systems.md, Another grounder)."""
