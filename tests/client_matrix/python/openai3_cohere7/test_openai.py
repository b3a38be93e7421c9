"""Run the tests of openai_checks.py in this environment."""

from openai_checks import *  # noqa: F403
