"""Run the tests of cohere_checks.py in this environment."""

from cohere_checks import *  # noqa: F403
