"""Text2Video-Zero: videos from text-to-image diffusion models, without training (arXiv 2303.13439)."""

__version__ = "0.1.0"
