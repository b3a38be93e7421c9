"""Model names to local folders: downloads, pinned revisions, checksums, the built-in model."""
