"""The Hugging Face Hub: which files of a model are needed, bringing them, and using them offline."""

from text2video_zero.models.hub.client import Hub

__all__ = ["Hub"]
