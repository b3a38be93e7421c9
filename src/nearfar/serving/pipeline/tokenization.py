"""Shows the tokens of texts, and the text of tokens. No forward runs, and no usage is counted."""

from __future__ import annotations

from nearfar.core.jobs import Chat, DetokenizeJob, Tokenized, TokenizedText, TokenizeJob
from nearfar.models.tokenization.prompts import choose_prompt
from nearfar.serving.access import RequestContext
from nearfar.serving.pipeline.encoding import TokenizerPool
from nearfar.serving.pipeline.limits import check_shown


async def tokenize(job: TokenizeJob, tokenizers: TokenizerPool, context: RequestContext) -> Tokenized:
    """Return the tokens of each text after its prompt, or of each rendered chat, untruncated."""
    model = context.model
    name = context.prompt_name or job.prompt
    prompt = choose_prompt(model.recipe, name, None) if name else ""

    def tokenize_one(found: str | Chat) -> TokenizedText:
        text = model.encoder.messages.render(found) if isinstance(found, Chat) else prompt + found
        return TokenizedText(text, model.encoder.tokenizer.tokenize(text, special=job.special))

    tokenized = await tokenizers.run(check_shown(job.texts), lambda: tuple(map(tokenize_one, job.texts)))
    return Tokenized(info=model.info, texts=tokenized)


async def detokenize(job: DetokenizeJob, tokenizers: TokenizerPool, context: RequestContext) -> str:
    """Decode token ids of the model's own vocabulary."""
    encoder = context.model.encoder
    return await tokenizers.run(check_shown([job.ids]), lambda: encoder.tokenizer.decode(job.ids, special=job.special))
