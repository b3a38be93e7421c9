// Vercel's AI SDK with its providers for OpenAI and Cohere. It validates responses against schemas and retries.

import assert from "node:assert/strict";
import * as matrix from "../matrix.mjs";

const { TEXTS, QUERY, DOCUMENTS, UNKNOWN } = matrix;

/** Check an OpenAI-compatible provider, which `create` creates from settings. `aliases`: the SDK, the provider. */
export function openaiChecks(aliases, ai, { VERSION }, create) {
  const connect = (root) => create({ baseURL: `${root}/v1`, apiKey: matrix.KEY });
  const model = (root = matrix.SERVER, name = matrix.EMBEDDER) => connect(root).textEmbeddingModel(name);

  matrix.client(import.meta.url, aliases, (check, versions) => {
    embeddingChecks(check, ai, { model, plain: matrix.plainVectors, message: /^The model `no-such-model` does not exist/ });
    versionCheck(check, ai, { model, versions, VERSION });
  });
}

/** Check Cohere's provider: embeddings, and rerank if this SDK has it. */
export function cohereChecks(aliases, ai, { VERSION, createCohere }) {
  const connect = (root) => createCohere({ baseURL: `${root}/v2`, apiKey: matrix.KEY });
  const model = (root = matrix.SERVER, name = matrix.COHERE_EMBEDDER) => connect(root).textEmbeddingModel(name);
  const plain = (texts) => matrix.plainCohereVectors(texts, "search_query");

  matrix.client(import.meta.url, aliases, (check, versions) => {
    embeddingChecks(check, ai, { model, plain, message: /^model 'no-such-model' not found/ });
    versionCheck(check, ai, { model, versions, VERSION });
    if (ai.rerank) rerankChecks(check, ai, (root) => connect(root).reranking(matrix.RERANKER));
  });
}

function versionCheck(check, ai, { model, versions, VERSION }) {
  check("other", "the packages under test are the installed versions", async () => {
    const name = await matrix.userAgent((root) => ai.embed({ model: model(root), value: "a" }));

    assert.deepEqual([name.split(" ")[0], VERSION], [`ai/${versions[0]}`, versions[1]]);
  });
}

function embeddingChecks(check, ai, { model, plain, message }) {
  check("embeddings", "embedMany returns the plain request's vectors, and counts tokens", async () => {
    const expected = await plain(TEXTS);

    const reply = await ai.embedMany({ model: model(), values: TEXTS });

    matrix.assertSameVectors(expected, reply.embeddings);
    assert.ok(reply.usage.tokens > TEXTS.length);
  });

  check("embeddings", "embed returns one vector", async () => {
    const [expected] = await plain([TEXTS[1]]);

    const reply = await ai.embed({ model: model(), value: TEXTS[1] });

    matrix.assertSameVectors([expected], [reply.embedding]);
  });

  check("error", "an unknown model is an APICallError with the server's message and status", async () => {
    const error = await matrix.rejection(ai.embed({ model: model(matrix.SERVER, UNKNOWN), value: "a" }));

    assert.ok(ai.APICallError.isInstance(error));
    assert.equal(error.statusCode, 404);
    assert.equal(error.isRetryable, false);
    assert.match(error.message, message);
  });

  check("retry", "a 429 is retried", async () => {
    const expected = await plain(TEXTS);
    await matrix.arm(1);

    const reply = await ai.embedMany({ model: model(matrix.FLAKY), values: TEXTS });

    matrix.assertSameVectors(expected, reply.embeddings);
    assert.equal(await matrix.count(), 2);
  });

  check("retry", "without retries a 429 is a retryable APICallError with a message", async () => {
    await matrix.arm(1);

    const error = await matrix.rejection(ai.embed({ model: model(matrix.FLAKY), value: "a", maxRetries: 0 }));

    assert.ok(ai.APICallError.isInstance(error));
    assert.deepEqual([error.statusCode, error.isRetryable], [429, true]);
    assert.notEqual(error.message, "Too Many Requests", "the message must come from the body, not from the status line");
    assert.equal(await matrix.count(), 1);
  });
}

function rerankChecks(check, ai, model) {
  const ranking = (reply) => reply.ranking.map((found) => ({ index: found.originalIndex, score: found.score }));

  check("rerank", "rerank orders the documents as the plain request does, with topN", async () => {
    const expected = await matrix.plainRanking({ top_n: 3 });

    const reply = await ai.rerank({ model: model(matrix.SERVER), query: QUERY, documents: DOCUMENTS, topN: 3 });

    matrix.assertSameRanking(expected, ranking(reply));
    assert.deepEqual(reply.rerankedDocuments, expected.map((found) => DOCUMENTS[found.index]));
  });

  check("rerank", "objects are ranked as the JSON text that the client sends", async () => {
    const documents = DOCUMENTS.map((text) => ({ text }));
    const expected = await matrix.plainRanking({ documents: documents.map((document) => JSON.stringify(document)) });

    const reply = await ai.rerank({ model: model(matrix.SERVER), query: QUERY, documents });

    matrix.assertSameRanking(expected, ranking(reply));
  });

  check("error", "rerank with a blank query is an APICallError with the server's message", async () => {
    const error = await matrix.rejection(ai.rerank({ model: model(matrix.SERVER), query: " ", documents: DOCUMENTS }));

    assert.ok(ai.APICallError.isInstance(error));
    assert.equal(error.statusCode, 400);
    assert.match(error.message, /query must not be empty or be only whitespace/);
  });

  check("retry", "rerank is retried after a 429", async () => {
    const expected = await matrix.plainRanking();
    await matrix.arm(1);

    const reply = await ai.rerank({ model: model(matrix.FLAKY), query: QUERY, documents: DOCUMENTS });

    matrix.assertSameRanking(expected, ranking(reply));
    assert.equal(await matrix.count(), 2);
  });
}
