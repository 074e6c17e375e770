"""What frames see of one another: cross-frame attention, keys of the text, merged tokens."""
