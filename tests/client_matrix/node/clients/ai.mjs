// What Vercel's AI SDK must get through its providers for OpenAI and for Cohere. It checks answers against schemas, and
// sends again by itself.

import assert from "node:assert/strict";
import * as matrix from "../matrix.mjs";

const { TEXTS, QUERY, DOCUMENTS, UNKNOWN } = matrix;

/** Check a provider that speaks as OpenAI's does; `create` makes it of its settings. `aliases` are the SDK's and its. */
export function openaiChecks(aliases, ai, { VERSION }, create) {
  const connect = (root) => create({ baseURL: `${root}/v1`, apiKey: matrix.KEY });
  const model = (root = matrix.SERVER, name = matrix.EMBEDDER) => connect(root).textEmbeddingModel(name);

  matrix.client(import.meta.url, aliases, (check, versions) => {
    embeddingChecks(check, ai, { model, plain: matrix.plainVectors, complaint: /^The model `no-such-model` does not exist/ });
    versionCheck(check, ai, { model, versions, VERSION });
  });
}

/** Check Cohere's provider: embeddings, and rerank where this SDK has it. */
export function cohereChecks(aliases, ai, { VERSION, createCohere }) {
  const connect = (root) => createCohere({ baseURL: `${root}/v2`, apiKey: matrix.KEY });
  const model = (root = matrix.SERVER, name = matrix.COHERE_EMBEDDER) => connect(root).textEmbeddingModel(name);
  const plain = (texts) => matrix.plainCohereVectors(texts, "search_query");

  matrix.client(import.meta.url, aliases, (check, versions) => {
    embeddingChecks(check, ai, { model, plain, complaint: /^model 'no-such-model' not found/ });
    versionCheck(check, ai, { model, versions, VERSION });
    if (ai.rerank) rerankChecks(check, ai, (root) => connect(root).reranking(matrix.RERANKER));
  });
}

function versionCheck(check, ai, { model, versions, VERSION }) {
  check("other", "the copies that run call themselves by the versions named here", async () => {
    const name = await matrix.userAgent((root) => ai.embed({ model: model(root), value: "a" }));

    assert.deepEqual([name.split(" ")[0], VERSION], [`ai/${versions[0]}`, versions[1]]);
  });
}

function embeddingChecks(check, ai, { model, plain, complaint }) {
  check("embeddings", "embedMany gives the plain request's vectors, and counts tokens", async () => {
    const expected = await plain(TEXTS);

    const reply = await ai.embedMany({ model: model(), values: TEXTS });

    matrix.assertSameVectors(expected, reply.embeddings);
    assert.ok(reply.usage.tokens > TEXTS.length);
  });

  check("embeddings", "embed gives one", async () => {
    const [expected] = await plain([TEXTS[1]]);

    const reply = await ai.embed({ model: model(), value: TEXTS[1] });

    matrix.assertSameVectors([expected], [reply.embedding]);
  });

  check("error", "an unknown model is an APICallError with the server's message and status", async () => {
    const error = await matrix.rejection(ai.embed({ model: model(matrix.SERVER, UNKNOWN), value: "a" }));

    assert.ok(ai.APICallError.isInstance(error));
    assert.equal(error.statusCode, 404);
    assert.equal(error.isRetryable, false);
    assert.match(error.message, complaint);
  });

  check("retry", "a refusal with 429 is sent again and answered", async () => {
    const expected = await plain(TEXTS);
    await matrix.arm(1);

    const reply = await ai.embedMany({ model: model(matrix.FLAKY), values: TEXTS });

    matrix.assertSameVectors(expected, reply.embeddings);
    assert.equal(await matrix.count(), 2);
  });

  check("retry", "without retries a 429 is an APICallError that may be sent again, with a message", async () => {
    await matrix.arm(1);

    const error = await matrix.rejection(ai.embed({ model: model(matrix.FLAKY), value: "a", maxRetries: 0 }));

    assert.ok(ai.APICallError.isInstance(error));
    assert.deepEqual([error.statusCode, error.isRetryable], [429, true]);
    assert.notEqual(error.message, "Too Many Requests", "the status line stands in for a message that wasn't understood");
    assert.equal(await matrix.count(), 1);
  });
}

function rerankChecks(check, ai, model) {
  const ranking = (reply) => reply.ranking.map((found) => ({ index: found.originalIndex, score: found.score }));

  check("rerank", "rerank orders the documents as the plain request does, cut to the best", async () => {
    const expected = await matrix.plainRanking({ top_n: 3 });

    const reply = await ai.rerank({ model: model(matrix.SERVER), query: QUERY, documents: DOCUMENTS, topN: 3 });

    matrix.assertSameRanking(expected, ranking(reply));
    assert.deepEqual(reply.rerankedDocuments, expected.map((found) => DOCUMENTS[found.index]));
  });

  check("rerank", "objects are ranked by the text that the client makes of them", async () => {
    const documents = DOCUMENTS.map((text) => ({ text }));
    const expected = await matrix.plainRanking({ documents: documents.map((document) => JSON.stringify(document)) });

    const reply = await ai.rerank({ model: model(matrix.SERVER), query: QUERY, documents });

    matrix.assertSameRanking(expected, ranking(reply));
  });

  check("error", "rerank without a text in its query is an APICallError with the server's message", async () => {
    const error = await matrix.rejection(ai.rerank({ model: model(matrix.SERVER), query: " ", documents: DOCUMENTS }));

    assert.ok(ai.APICallError.isInstance(error));
    assert.equal(error.statusCode, 400);
    assert.match(error.message, /query must not be empty or be only whitespace/);
  });

  check("retry", "rerank is sent again after a 429", async () => {
    const expected = await matrix.plainRanking();
    await matrix.arm(1);

    const reply = await ai.rerank({ model: model(matrix.FLAKY), query: QUERY, documents: DOCUMENTS });

    matrix.assertSameRanking(expected, ranking(reply));
    assert.equal(await matrix.count(), 2);
  });
}
