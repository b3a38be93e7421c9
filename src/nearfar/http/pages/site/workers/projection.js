// Projects vectors to two dimensions: PCA at once, then UMAP. Runs in a worker, so that the page stays responsive.
importScripts("../vendor/umap-js.min.js");

const STEPS = 40; // of the power iteration

onmessage = ({ data: { flat, count } }) => {
  const size = flat.length / count;
  const rows = Array.from({ length: count }, (_, at) => flat.subarray(at * size, (at + 1) * size));
  postMessage({ kind: "pca", points: pca(rows, size) });
  postMessage({ kind: "nearest", ...nearest(rows, size) });
  if (count < 15) return; // too few for neighborhoods
  const umap = new UMAP.UMAP({ nComponents: 2, nNeighbors: Math.min(15, count - 1), minDist: 0.1, random: seeded(7) });
  const epochs = umap.initializeFit(rows);
  for (let epoch = 0; epoch < epochs; epoch++) {
    umap.step();
    if (epoch % 25 === 0) postMessage({ kind: "progress", share: epoch / epochs });
  }
  postMessage({ kind: "umap", points: Float32Array.from(umap.getEmbedding().flat()) });
};

/** Return each row's nearest other row, and their cosine. */
function nearest(rows, size) {
  const unit = rows.map((row) => {
    const length = Math.hypot(...row) || 1;
    return row.map((value) => value / length);
  });
  const best = new Float32Array(rows.length).fill(-2),
    index = new Int32Array(rows.length).fill(-1);
  for (let i = 0; i < rows.length; i++) {
    for (let j = i + 1; j < rows.length; j++) {
      let dot = 0;
      for (let k = 0; k < size; k++) dot += unit[i][k] * unit[j][k];
      if (dot > best[i]) {
        best[i] = dot;
        index[i] = j;
      }
      if (dot > best[j]) {
        best[j] = dot;
        index[j] = i;
      }
    }
  }
  return { best, index };
}

/** Return x and y of each row, along the two directions in which the rows differ most. */
function pca(rows, size) {
  const mean = new Float64Array(size);
  for (const row of rows) for (let i = 0; i < size; i++) mean[i] += row[i] / rows.length;
  const first = direction(rows, mean, size, null);
  const second = direction(rows, mean, size, first);
  const points = new Float32Array(rows.length * 2);
  rows.forEach((row, at) => {
    for (let i = 0; i < size; i++) {
      points[2 * at] += (row[i] - mean[i]) * first[i];
      points[2 * at + 1] += (row[i] - mean[i]) * second[i];
    }
  });
  return points;
}

/** Return the direction of the largest variance, at a right angle to another one; by power iteration. */
function direction(rows, mean, size, other) {
  const random = seeded(1);
  let found = Float64Array.from({ length: size }, () => random() - 0.5);
  for (let step = 0; step < STEPS; step++) {
    const next = new Float64Array(size);
    for (const row of rows) {
      let dot = 0;
      for (let i = 0; i < size; i++) dot += (row[i] - mean[i]) * found[i];
      for (let i = 0; i < size; i++) next[i] += dot * (row[i] - mean[i]);
    }
    if (other) {
      const along = next.reduce((sum, value, i) => sum + value * other[i], 0);
      next.forEach((_, i) => {
        next[i] -= along * other[i];
      });
    }
    const length = Math.hypot(...next) || 1;
    found = next.map((value) => value / length);
  }
  return found;
}

/** Return a generator of numbers in [0, 1), the same every time (mulberry32). */
function seeded(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
