// Files, uploads and batches with OpenAI's official client in the major versions in use.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import * as matrix from "../matrix.mjs";

const ENDED = ["completed", "failed", "expired", "cancelled"];
const BODIES = {
  "/v1/embeddings": [
    { model: matrix.EMBEDDER, input: matrix.TEXTS, dimensions: 64 },
    { model: matrix.EMBEDDER, input: "a cat", encoding_format: "base64" },
  ],
  "/v2/rerank": [{ model: matrix.RERANKER, query: matrix.QUERY, documents: matrix.DOCUMENTS }],
};
const NEW = { filename: "in.jsonl", mime_type: "application/jsonl", purpose: "batch" };

const inputOf = (endpoint) =>
  BODIES[endpoint]
    .map((body, at) => JSON.stringify({ custom_id: String(at), method: "POST", url: endpoint, body }))
    .join("\n");
const fileOf = (content) => new File([content], "in.jsonl");

/** Compare each answer with that of a plain HTTP request, value by value. */
async function assertAnswers(endpoint, output) {
  const answers = output.trim().split("\n").map((line) => JSON.parse(line));
  assert.equal(answers.length, BODIES[endpoint].length);
  for (const [at, body] of BODIES[endpoint].entries()) {
    const { id: _, ...direct } = await matrix.request(endpoint, body);
    const { id: __, ...found } = answers[at].response.body;
    assert.equal(answers[at].custom_id, String(at));
    assert.deepEqual(found, direct);
  }
}

async function finished(client, batch) {
  while (!ENDED.includes(batch.status)) {
    await sleep(100);
    batch = await client.batches.retrieve(batch.id);
  }
  return batch;
}

export function batchChecks(check, client) {
  const remove = (id) => (client.files.delete ? client.files.delete(id) : client.files.del(id));

  for (const endpoint of Object.keys(BODIES)) {
    check("other", `a batch of ${endpoint} answers as direct calls`, async () => {
      const file = await client.files.create({ file: fileOf(inputOf(endpoint)), purpose: "batch" });
      const started = await client.batches.create({ input_file_id: file.id, endpoint, completion_window: "24h" });

      const batch = await finished(client, started);

      assert.equal(batch.status, "completed");
      assert.equal(batch.request_counts.completed, BODIES[endpoint].length);
      await assertAnswers(endpoint, await (await client.files.content(batch.output_file_id)).text());
      const listed = [];
      for await (const each of client.batches.list({ limit: 2 })) listed.push(each.id);
      assert.equal(listed[0], batch.id);
      assert.equal(new Set(listed).size, listed.length);
    });
  }

  check("other", "a file of an upload's parts starts a batch", async () => {
    const data = Buffer.from(inputOf("/v1/embeddings"));
    const upload = await client.uploads.create({ ...NEW, bytes: data.length });
    const last = await client.uploads.parts.create(upload.id, { data: fileOf(data.subarray(50)) });
    const first = await client.uploads.parts.create(upload.id, { data: fileOf(data.subarray(0, 50)) });
    const md5 = createHash("md5").update(data).digest("hex");

    const done = await client.uploads.complete(upload.id, { part_ids: [first.id, last.id], md5 });

    assert.equal(done.status, "completed");
    const batch = await finished(
      client,
      await client.batches.create({ input_file_id: done.file.id, endpoint: "/v1/embeddings", completion_window: "24h" }),
    );
    await assertAnswers("/v1/embeddings", await (await client.files.content(batch.output_file_id)).text());
    const cancelled = await client.uploads.cancel((await client.uploads.create({ ...NEW, bytes: 1 })).id);
    assert.equal(cancelled.status, "cancelled");
  });

  check("other", "files are listed page by page, read in part and deleted", async () => {
    const created = [];
    for (let at = 0; at < 5; at += 1) {
      created.push((await client.files.create({ file: fileOf("0123456789"), purpose: "batch" })).id);
    }
    const listed = [];
    for await (const file of client.files.list({ limit: 2 })) listed.push(file.id);
    const part = await client.files.content(created[0], { headers: { range: "bytes=2-4" } });

    assert.deepEqual(listed.slice(0, 5), created.reverse());
    assert.equal(part.status, 206);
    assert.equal(await part.text(), "234");
    for (const id of created) assert.equal((await remove(id)).deleted, true);
    assert.equal((await matrix.rejection(client.files.retrieve(created[0]))).status, 404);
  });
}
