"""Compares a served model with the library that its files were written by, once for each folder."""
