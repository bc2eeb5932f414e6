"""Held-out scenes asked of a running server: accuracy by kind, the choice, the boxes (`dualfocus eval scenes`)."""
