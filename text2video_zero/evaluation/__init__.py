"""Measurements of what the engine makes."""
