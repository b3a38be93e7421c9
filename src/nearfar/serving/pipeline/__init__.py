"""Jobs to token rows, and rows' results to answers."""
