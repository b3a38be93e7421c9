"""A checkpoint's folder to a Recipe: one file a kind of model."""
