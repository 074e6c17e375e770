"""The training of the whole family: its recipe, data, loop and commands."""
