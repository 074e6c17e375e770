"""What moves, and how: the camera, the first frame's latents, and noise."""
