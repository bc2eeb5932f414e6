"""Models made from nothing: the one that ships and the untrained one of the tests."""
