"""What a checkpoint is, as structs. Reads no files."""
