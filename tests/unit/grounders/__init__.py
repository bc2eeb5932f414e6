"""Tests of the grounders, the engine's and the server's."""
