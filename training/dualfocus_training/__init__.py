"""Training of DualFocus models: scenes, curation, the two-round objective and the model that ships."""
