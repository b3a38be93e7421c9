"""Checkpoints of every kind, each as a few lines over shared parts; ``CASES`` has them all by name."""

from parity_cases import decoders, encoders, outputs, rerankers, steps, tensors, tokenizers
from parity_cases.parts import Checkpoint

# The manual's heading for each group → its cases.
GROUPS: dict[str, dict[str, Checkpoint]] = {
    "Encoders": encoders.CASES,
    "Decoders": decoders.CASES,
    "Rerankers and classifiers": rerankers.CASES,
    "SPLADE and ColBERT": outputs.CASES,
    "sentence-transformers' files": steps.CASES,
    "Tokenizers": tokenizers.CASES,
    "Weights": tensors.CASES,
}
CASES = {name: case for cases in GROUPS.values() for name, case in cases.items()}
