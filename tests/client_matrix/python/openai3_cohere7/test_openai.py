"""What openai_checks.py holds, in this environment."""

from openai_checks import *  # noqa: F403
