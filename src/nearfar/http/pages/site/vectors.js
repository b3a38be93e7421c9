// Numbers only: no page, no network.

/** Return the cosine of two vectors; 0 where one has no length. */
export function cosine(a, b) {
  let dot = 0,
    left = 0,
    right = 0;
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    left += a[i] * a[i];
    right += b[i] * b[i];
  }
  return left && right ? dot / Math.sqrt(left * right) : 0;
}

/** Return the cosine of each vector with each other, as rows. */
export function similarities(vectors) {
  return vectors.map((a) => vectors.map((b) => cosine(a, b)));
}

/** Return [i, j, similarity] of each pair, nearest first. */
export function pairs(matrix) {
  const found = [];
  for (let i = 0; i < matrix.length; i++) for (let j = i + 1; j < matrix.length; j++) found.push([i, j, matrix[i][j]]);
  return found.sort((a, b) => b[2] - a[2]);
}

/** Return how many of the sorted pairs are above the largest gap of their similarities; 0 where it is below the first ten. */
export function standingOut(nearest) {
  let above = 0,
    largest = 0;
  for (let at = 1; at < nearest.length; at++) {
    const gap = nearest[at - 1][2] - nearest[at][2];
    if (gap > largest) [above, largest] = [at, gap];
  }
  return nearest.length > 2 && above < 10 ? above : 0;
}

/** Return ±1 for each bit of packed bytes, the first bit highest. */
export function unpackBits(bytes) {
  return bytes.flatMap((byte) => [7, 6, 5, 4, 3, 2, 1, 0].map((bit) => ((byte >> bit) & 1 ? 1 : -1)));
}

/** Return the largest difference of two matrices, and the share of pairs that are in the same order. */
export function loss(exact, other) {
  const before = pairs(exact),
    after = before.map(([i, j]) => other[i][j]);
  const largest = Math.max(0, ...before.map(([i, j, value]) => Math.abs(value - other[i][j])));
  let kept = 0,
    all = 0;
  for (let i = 0; i < after.length; i++) {
    for (let j = i + 1; j < after.length; j++) {
      all += 1;
      kept += after[i] >= after[j] ? 1 : 0;
    }
  }
  return { largest, kept: all ? kept / all : 1 };
}
