"""What cohere_checks.py holds, in this environment."""

from cohere_checks import *  # noqa: F403
