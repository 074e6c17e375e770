"""Toyland: a procedural picture-book world and the small Stable Diffusion family trained on it.

``toyland.world.scene`` samples and draws scenes (with mask, depth and skeleton), ``toyland.world.captions``
puts them into words. Nothing here is needed at run time of the app.
"""
