"""One file for each trained part: its network and its loss."""
