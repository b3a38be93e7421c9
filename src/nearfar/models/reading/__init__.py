"""Reads a checkpoint's folder into a Recipe."""
