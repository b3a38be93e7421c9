"""Enable pytest's detailed assertion messages in the shared files."""

import pytest

pytest.register_assert_rewrite("matrix", "openai_batches", "openai_checks", "cohere_checks")
