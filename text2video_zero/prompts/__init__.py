"""Prompts: what people write into them beside words, and how all of it reaches the text encoders."""
