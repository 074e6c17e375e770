"""The picture-book world: scenes, their renderer with its ground truth, captions and edits."""
