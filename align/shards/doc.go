// Package shards compares two embeddings of a data set whose rows lie in shards that several processes, on one machine
// or many, read: the two passes of package compare, each as a function of some shards, with results that are bytes.
//
//	plan      NewPlan        which shards there are, and what is fixed before the first pass
//	partial   Plan.Partial   moments of some shards: packed Gram matrix in float64, sums, row count, fingerprints
//	merge     Merge          two or more partials in one; refuses a shard that is there twice, and other settings
//	spectrum  Plan.Spectrum  the directions, from the moments of all shards; refuses a gap, and names it
//	top       Plan.Top       scores of some shards: the samples of each direction, and what measures it; merged by Merge
//	result    Plan.Conclude  what compare gives
//
// Merging is commutative and associative to the last bit: sums are made in the order of compare.Tree, and what is
// waiting for a sum to its left is kept as it is. Any engine that can apply a function to groups of shards and reduce
// bytes gives the same bytes, however it schedules, and those of a single process that compares the same shards. A
// partial of aligned shards (8^k of them from a multiple of 8^k on) is one matrix; one of scattered shards has a matrix
// for each run of neighbours.
//
// A fingerprint is the CRC-32C of a shard's rows as float32, for each side. The second pass compares it with the
// first's, so that a shard that changed meanwhile is an error that names it.
//
// # Format
//
// All numbers are little-endian.
//
//	offset  bytes
//	0       8      "\x89SPECSH\n"
//	8       4      version, 1
//	12      4      kind: 1 plan, 2 moments, 3 directions, 4 scores
//	16      8      H, length of the header
//	24      8      B, length of the body
//	32      H      header, JSON
//	32+H    B      body: arrays whose lengths follow from the header
//	32+H+B  4      CRC-32C of all before
//
// The body of a plan is float32: for each side landmarks or frequencies, whitening, shift. That of moments is float64:
// for each part the lower triangle of its Gram matrix row by row, and the sums of its columns. That of directions: the
// vectors and what centring takes from the features. That of scores, for each part: for each direction the sum of its
// scores and of their squares, and its image.
package shards
