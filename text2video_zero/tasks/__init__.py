"""How each task prepares: from a request to the state with which the one loop begins."""
