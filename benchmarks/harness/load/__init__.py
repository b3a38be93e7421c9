"""An HTTP load generator that runs as a separate process. Standard library only."""
