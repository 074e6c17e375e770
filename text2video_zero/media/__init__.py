"""Clips in, videos out, and the settings in their files."""
