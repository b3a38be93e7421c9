"""Model names to local folders: download, pinning, checksums, the built-in model."""
