"""Run the tests of openai_batches.py and openai_checks.py in this environment."""

from openai_batches import *  # noqa: F403
from openai_checks import *  # noqa: F403
