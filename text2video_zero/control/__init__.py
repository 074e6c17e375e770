"""From a clip to its control maps."""
