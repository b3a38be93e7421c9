"""What transformers' own language model or classifier answers to an LLM reranker's prompt, in the reference's process.

The prompt's words are the recipe's; its tokens are those of transformers' tokenizer. A pair over the limit isn't
computed: each maker cuts it in a way of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.models.recipe.recipe import DOCUMENT, QUERY

if TYPE_CHECKING:
    from nearfar.serving.verification.reference import Compute, Task, Texts

_PLACEHOLDERS = re.compile(r"(\{\w+\})")


def score_prompts(task: Task) -> Compute:
    """Return logit(yes) less logit(no) of the last position, or the logit of a model that was made a classifier."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from nearfar.engines.transformer.length_dependence import forget_earlier_texts

    folder = Path(task.folder) / task.subfolder
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    auto: Any = AutoModelForCausalLM if task.answers else AutoModelForSequenceClassification
    model = auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False).float().eval()
    forget_earlier_texts(model, task.limit)

    def compute(item: Texts) -> tuple[Any, list[int]]:
        values = dict(zip((QUERY, DOCUMENT), item, strict=True))
        texts = ["".join(values.get(part, part) for part in _PLACEHOLDERS.split(text)) for text in task.segments]
        parts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        query = max(len(part) for part, text in zip(parts, task.segments, strict=True) if QUERY in text)
        ids = [token for part in parts for token in part]
        if len(ids) > task.limit or query > int(task.limit * task.query_ratio):
            raise ValueError("over the limit")
        logits = model(torch.tensor([ids])).logits[0]
        if not task.answers:
            return logits, ids
        yes, *no = task.answers
        return logits[-1, yes] - sum(logits[-1, each] for each in no), ids

    return compute
