"""Lets the assertions in the shared files tell what they compared."""

import pytest

pytest.register_assert_rewrite("matrix", "openai_checks", "cohere_checks")
