"""Measurements of speed; the tests measure none, since machines differ and are rarely idle."""
