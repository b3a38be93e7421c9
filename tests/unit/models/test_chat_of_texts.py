"""A chat template for single texts that can't render one is refused at opening, with the file and the way out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from nearfar.core.errors import CheckpointError
from nearfar.models.recipe.recipe import ChatTemplate
from nearfar.models.tokenization.pair_prompt import ChatEncoder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ raise_exception('no') }}", "no"),
        ("{% if messages[0].role != 'system' %}{{ raise_exception('first') }}{% endif %}", "first"),
        ("{{ messages[1].content }}{{ 1 / 0 }}", "has no"),
        ("{% for %}", "Expected"),
    ],
)
def test_a_template_that_cannot_render_a_text_is_refused(source: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as refused:
        ChatEncoder(ChatTemplate(source=source, variables={}), lambda texts: [[1] for _ in texts], tmp_path)

    assert re.search(rf"can't be rendered \(.*{why}.*\); use a chat_template\.jinja, or", str(refused.value))
