// Cohere's official client in two major versions: CohereClient (API v1) and CohereClientV2 (API v2).

import assert from "node:assert/strict";
import * as matrix from "../matrix.mjs";

const { TEXTS, QUERY, DOCUMENTS, UNKNOWN } = matrix;
const model = matrix.COHERE_EMBEDDER;
const RERANK = { model: matrix.RERANKER, query: QUERY, documents: DOCUMENTS };
const EMBED = { model, texts: TEXTS, inputType: "search_document" };

const ranking = (reply) => reply.results.map((found) => ({ index: found.index, score: found.relevanceScore }));

export function cohereChecks(alias, { Cohere, CohereClient, CohereClientV2, CohereError }) {
  const connect = (kind, root = matrix.SERVER, token = matrix.KEY) => new kind({ token, environment: root });
  const v1 = connect(CohereClient);
  const v2 = connect(CohereClientV2);

  matrix.client(import.meta.url, [alias], (check, [version]) => {
    check("embeddings", "v1 without types returns plain lists and the texts", async () => {
      const expected = await matrix.plainCohereVectors(TEXTS, "search_document");

      const reply = await v1.embed(EMBED);

      assert.equal(reply.responseType, "embeddings_floats");
      matrix.assertSameVectors(expected, reply.embeddings);
      assert.deepEqual(reply.texts, TEXTS);
      assert.ok(reply.meta.billedUnits.inputTokens > TEXTS.length);
    });

    check("embeddings", "v1 with types returns those types and no others", async () => {
      const expected = await matrix.plainCohereVectors(TEXTS, "search_document");

      const reply = await v1.embed({ ...EMBED, embeddingTypes: ["float", "int8"] });

      assert.equal(reply.responseType, "embeddings_by_type");
      matrix.assertSameVectors(expected, reply.embeddings.float);
      assert.ok(reply.embeddings.int8.flat().every((value) => Number.isInteger(value) && Math.abs(value) <= 128));
      assert.equal(reply.embeddings.uint8, undefined);
    });

    check("embeddings", "v2 returns every type of the same vectors", async () => {
      const [expected] = await matrix.plainCohereVectors(TEXTS, "search_document");
      const embeddingTypes = ["float", "int8", "uint8", "binary", "ubinary", "base64"];

      const { embeddings } = await v2.embed({ ...EMBED, embeddingTypes });

      const { float, int8, uint8, binary, ubinary, base64 } = embeddings;
      const decoded = new Float32Array(new Uint8Array(Buffer.from(base64[0], "base64")).buffer);
      matrix.assertSameVectors([expected, expected], [float[0], decoded]);
      assert.ok(matrix.cosine(expected, int8[0]) > 0.99);
      assert.ok(matrix.cosine(expected, uint8[0].map((value) => value - 127.5)) > 0.99);
      assert.deepEqual(bits(ubinary[0]), float[0].map((value) => (value > 0 ? 1 : 0)));
      assert.deepEqual(binary[0], ubinary[0].map((value) => value - 128));
    });

    check("embeddings", "v2 accepts inputs with content parts, and an output dimension", async () => {
      const [expected] = await matrix.plainVectors([TEXTS[0]], { dimensions: 256 });
      const inputs = [{ content: [{ type: "text", text: TEXTS[0] }] }];

      const reply = await v2.embed({
        model, inputs, inputType: "classification", embeddingTypes: ["float"], outputDimension: 256,
      });

      assert.ok(matrix.cosine(expected, reply.embeddings.float[0]) > 0.9999);
      assert.equal(reply.embeddings.float[0].length, 256);
    });

    check("rerank", "v1 ranks as the plain request, and returns documents on request", async () => {
      const expected = await matrix.plainRanking();

      const plain = await v1.rerank(RERANK);
      const asked = await v1.rerank({
        ...RERANK, documents: DOCUMENTS.map((text) => ({ text })), topN: 2, returnDocuments: true,
      });

      matrix.assertSameRanking(expected, ranking(plain));
      assert.equal(plain.results[0].document, undefined);
      matrix.assertSameRanking(expected.slice(0, 2), ranking(asked));
      assert.deepEqual(asked.results.map((found) => found.document.text), asked.results.map((found) => DOCUMENTS[found.index]));
    });

    check("rerank", "v2 ranks as the plain request, with topN", async () => {
      const expected = await matrix.plainRanking();

      const reply = await v2.rerank({ ...RERANK, topN: 3, maxTokensPerDoc: 4096 });

      assert.equal(reply.results.length, 3);
      matrix.assertSameRanking(expected.slice(0, 3), ranking(reply));
      assert.equal(reply.meta.billedUnits.searchUnits, 1);
    });

    check("other", "tokenize and detokenize round-trip", async () => {
      const pieces = await v1.tokenize({ model, text: "a cat on the sofa" });

      const whole = await v1.detokenize({ model, tokens: pieces.tokens });

      assert.equal(pieces.tokenStrings.length, pieces.tokens.length);
      assert.equal(pieces.tokenStrings.join(""), "a cat on the sofa");
      assert.equal(whole.text, "a cat on the sofa");
    });

    check("other", "checkApiKey reports a valid key", async () => {
      const reply = await v1.checkApiKey();

      assert.equal(reply.valid, true);
    });

    check("other", "models are listed by endpoint, and retrieved by a name with a slash", async () => {
      const { models } = await v1.models.list({ endpoint: "embed", pageSize: 20 });

      const one = await v1.models.get(models[0].name);

      assert.ok(models.length > 0);
      assert.ok(models.every((listed) => listed.endpoints.includes("embed") && listed.contextLength > 0));
      assert.equal(one.name, models[0].name);
      assert.deepEqual(one.endpoints, models[0].endpoints);
    });

    check("other", "the client under test is the installed version", async () => {
      const name = await matrix.userAgent((root) => connect(CohereClientV2, root).rerank(RERANK));

      assert.equal(name, `cohere-ai/${version}`);
    });

    for (const [name, client] of [["v1", v1], ["v2", v2]]) {
      check("error", `${name} throws NotFoundError for an unknown model`, async () => {
        const error = await matrix.rejection(client.rerank({ ...RERANK, model: UNKNOWN }));

        assert.ok(error instanceof Cohere.NotFoundError);
        assert.ok(error instanceof CohereError);
        assert.equal(error.statusCode, 404);
        assert.match(error.body.message, /^model 'no-such-model' not found/);
      });

      check("error", `${name} throws BadRequestError for no documents`, async () => {
        const error = await matrix.rejection(client.rerank({ ...RERANK, documents: [] }));

        assert.ok(error instanceof Cohere.BadRequestError);
        assert.match(error.body.message, /list of documents must not be empty/);
        assert.match(error.message, /Status code: 400/);
      });
    }

    check("error", "a wrong key is an UnauthorizedError", async () => {
      const unauthorized = connect(CohereClientV2, matrix.SERVER, matrix.WRONG_KEY);

      const error = await matrix.rejection(unauthorized.rerank(RERANK));

      assert.ok(error instanceof Cohere.UnauthorizedError);
      assert.match(error.body.message, /^invalid api token/);
    });

    check("retry", "v1 retries an embed after a 429", async () => {
      const expected = await matrix.plainCohereVectors(TEXTS, "search_document");
      await matrix.arm(1);

      const reply = await connect(CohereClient, matrix.FLAKY).embed(EMBED);

      matrix.assertSameVectors(expected, reply.embeddings);
      assert.equal(await matrix.count(), 2);
    });

    check("retry", "v2 retries a rerank after a 429", async () => {
      const expected = await matrix.plainRanking();
      await matrix.arm(1);

      const reply = await connect(CohereClientV2, matrix.FLAKY).rerank(RERANK);

      matrix.assertSameRanking(expected, ranking(reply));
      assert.equal(await matrix.count(), 2);
    });

    check("retry", "without retries a 429 is a TooManyRequestsError with its message", async () => {
      await matrix.arm(1);

      const error = await matrix.rejection(connect(CohereClientV2, matrix.FLAKY).rerank(RERANK, { maxRetries: 0 }));

      assert.ok(error instanceof Cohere.TooManyRequestsError);
      assert.ok(error.body.message.length > 0);
      assert.equal(await matrix.count(), 1);
    });
  });
}

/** Unpack bytes, most significant bit first. */
function bits(bytes) {
  return bytes.flatMap((byte) => [7, 6, 5, 4, 3, 2, 1, 0].map((shift) => (byte >> shift) & 1));
}
