// Hugging Face's inference client with a custom endpoint, as used with text-embeddings-inference. It posts to the URL
// unchanged and doesn't retry after a 429.

import assert from "node:assert/strict";
import { InferenceClientProviderApiError, featureExtraction, sentenceSimilarity } from "@huggingface/inference";
import * as matrix from "../matrix.mjs";

const { TEXTS, QUERY, DOCUMENTS } = matrix;
const at = (path, root = matrix.SERVER) => ({ endpointUrl: root + path, accessToken: matrix.KEY });

matrix.client(import.meta.url, ["@huggingface/inference"], (check, [version]) => {
  check("embeddings", "featureExtraction returns the plain request's vectors", async () => {
    const expected = await matrix.plainVectors(TEXTS);

    const vectors = await featureExtraction({ ...at("/embed"), inputs: TEXTS, normalize: true, truncate: true });

    matrix.assertSameVectors(expected, vectors);
  });

  check("embeddings", "featureExtraction works with the server's root URL", async () => {
    const expected = await matrix.plainVectors([TEXTS[0]]);

    const vectors = await featureExtraction({ ...at(""), inputs: TEXTS[0] });

    matrix.assertSameVectors(expected, vectors);
  });

  check("other", "sentenceSimilarity returns the cosines of the plain request's vectors", async () => {
    const [query, ...documents] = await matrix.plainVectors([QUERY, ...DOCUMENTS]);
    const inputs = { source_sentence: QUERY, sentences: DOCUMENTS };

    const similarities = await sentenceSimilarity({ ...at("/similarity"), inputs });

    assert.equal(similarities.length, DOCUMENTS.length);
    documents.forEach((document, i) => assert.ok(Math.abs(matrix.cosine(query, document) - similarities[i]) < 0.002));
  });

  check("other", "the client under test is the installed version", async () => {
    const name = await matrix.userAgent((root) => featureExtraction({ ...at("/embed", root), inputs: "a" }));

    assert.equal(name.split(" ")[0], `@huggingface/inference/${version}`);
  });

  check("error", "no inputs are a ProviderApiError with the server's message and status", async () => {
    const error = await matrix.rejection(featureExtraction({ ...at("/embed"), inputs: [] }));

    assert.ok(error instanceof InferenceClientProviderApiError);
    assert.equal(error.httpResponse.status, 400);
    assert.equal(typeof error.httpResponse.body.error, "string");
    assert.equal(error.message, `Failed to perform inference: ${error.httpResponse.body.error}`);
    assert.ok(error.httpResponse.requestId.length > 0);
  });

  check("no_retry", "a 429 is a ProviderApiError with its message, and is not retried", async () => {
    await matrix.arm(1);

    const error = await matrix.rejection(featureExtraction({ ...at("/embed", matrix.FLAKY), inputs: "a" }));

    assert.ok(error instanceof InferenceClientProviderApiError);
    assert.equal(error.httpResponse.status, 429);
    assert.doesNotMatch(error.message, /an HTTP error occurred/);
    assert.equal(await matrix.count(), 1);
  });
});
