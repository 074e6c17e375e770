"""Jobs on workers of a Ray cluster, a long clip on several at once."""
