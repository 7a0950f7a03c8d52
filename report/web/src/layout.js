// The two-dimensional layouts: UMAP over the neighbours that specalign found with the exact kernel.
import { UMAP } from "umap-js";

const SETTINGS = { minDist: 0.1, spread: 5, nEpochs: 300 };
const SEED = 0;

/** Mulberry32, a generator of 32 bits of state: the same layout each time the page is opened. */
function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/**
 * Lays out n points, one epoch at each next(); yields the fraction done. `side.points` (n, 2) is filled as it goes.
 *
 * side: { neighbours (n, k) indices, the point itself first; distances (n, k); start (n, 2) where the points begin }
 */
export function* layout(side, n, k) {
  const rows = (flat, width) => Array.from({ length: n }, (_, i) => Array.from(flat.subarray(i * width, (i + 1) * width)));
  const umap = new UMAP({ ...SETTINGS, nNeighbors: k, random: generator(SEED) });
  umap.setPrecomputedKNN(rows(side.neighbours, k), rows(side.distances, k));
  const epochs = umap.initializeFit(rows(side.start, 2)); // with precomputed neighbours only its length is looked at
  side.points = umap.getEmbedding();
  // umap-js starts at random places. The rows are its own arrays: filling them starts it from ours.
  side.points.forEach((p, i) => {
    p[0] = side.start[2 * i];
    p[1] = side.start[2 * i + 1];
  });
  for (let epoch = 0; epoch < epochs; epoch++) {
    umap.step();
    yield (epoch + 1) / epochs;
  }
}

/**
 * Rotates, mirrors and scales layouts into the unit square: the first as it is, the second so that equal samples lie
 * as near to each other as they can (orthogonal Procrustes in the plane).
 */
export function fitted(first, second) {
  const centred = (points) => {
    const mean = [0, 1].map((c) => points.reduce((s, p) => s + p[c], 0) / points.length);
    return points.map((p) => [p[0] - mean[0], p[1] - mean[1]]);
  };
  const a = centred(first);
  let b = centred(second);
  // m = bᵀ a; of its rotation and its reflection the one with the larger trace wins.
  const m = [0, 0, 0, 0];
  a.forEach((p, i) => {
    for (let r = 0; r < 2; r++) for (let c = 0; c < 2; c++) m[2 * r + c] += b[i][r] * p[c];
  });
  const rotation = Math.hypot(m[0] + m[3], m[1] - m[2]);
  const reflection = Math.hypot(m[0] - m[3], m[1] + m[2]);
  if (rotation >= reflection) {
    const [cos, sin] = rotation > 0 ? [(m[0] + m[3]) / rotation, (m[1] - m[2]) / rotation] : [1, 0];
    b = b.map(([x, y]) => [x * cos - y * sin, x * sin + y * cos]);
  } else {
    const [cos, sin] = [(m[0] - m[3]) / reflection, (m[1] + m[2]) / reflection];
    b = b.map(([x, y]) => [x * cos + y * sin, x * sin - y * cos]);
  }
  return [a, b].map(unit);
}

/** Scales points into [0, 1] x [0, 1], keeping their proportions. */
function unit(points) {
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const [x, y] of points) {
    [x0, x1, y0, y1] = [Math.min(x0, x), Math.max(x1, x), Math.min(y0, y), Math.max(y1, y)];
  }
  const size = Math.max(x1 - x0, y1 - y0) || 1;
  return points.map(([x, y]) => [0.5 + (x - (x0 + x1) / 2) / size, 0.5 + (y - (y0 + y1) / 2) / size]);
}
