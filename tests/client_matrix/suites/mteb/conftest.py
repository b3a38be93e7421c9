"""Provide tiktoken's vocabularies to every test."""

from vocabularies import tiktoken_files

__all__ = ["tiktoken_files"]
