"""`dualfocus check`: whether two looks will work with a model and a profile, found by asking about drawn pictures."""
