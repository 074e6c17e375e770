"""What runs behind the wall: a stranger's file is decoded in a process of its own, which `clip_reader` starts and ends.

Nothing here is imported by the app but the records in `facts.py`: torch and numpy stay out, so that the process is
there in a moment, and a decoder that crashes, hangs or swells takes nothing with it.
"""
