"""Shows the tokens of texts, and the text of tokens. No forward runs, and no usage is counted."""

from __future__ import annotations

from nearfar.core.jobs import DetokenizeJob, Tokenized, TokenizedText, TokenizeJob
from nearfar.models.tokenization.prompts import choose_prompt
from nearfar.serving.access import RequestContext
from nearfar.serving.pipeline.encoding import TokenizerPool
from nearfar.serving.pipeline.limits import check_shown


async def tokenize(job: TokenizeJob, tokenizers: TokenizerPool, context: RequestContext) -> Tokenized:
    """Return the tokens of each text after its prompt, untruncated."""
    model = context.model
    name = context.prompt_name or job.prompt
    prompt = choose_prompt(model.recipe, name, None) if name else ""
    texts = [prompt + text for text in job.texts]
    tokenized = await tokenizers.run(
        check_shown(texts),
        lambda: tuple(TokenizedText(text, model.tokens.tokenize(text, special=job.special)) for text in texts),
    )
    return Tokenized(info=model.info, texts=tokenized)


async def detokenize(job: DetokenizeJob, tokenizers: TokenizerPool, context: RequestContext) -> str:
    """Decode token ids of the model's own vocabulary."""
    tokens = context.model.tokens
    return await tokenizers.run(check_shown([job.ids]), lambda: tokens.decode(job.ids, special=job.special))
