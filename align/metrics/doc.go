// Package metrics says in single numbers how alike two embeddings of the same samples are.
//
//	SPEC-diff   max |λ| of L = (K1 - K2)/n: 0 where both see the same groups (eq. 5 of arXiv 2506.06231)
//	NNGS        how much the neighbourhoods of the samples overlap (arXiv 2411.08687), with the level of chance
//	CKA         alignment of the centred kernel matrices, linear and Gaussian (Kornblith et al., ICML 2019)
//
// Rows are streamed in blocks, as in package compare. Nothing of size n x n is kept: NNGS and Gaussian CKA form n x n
// numbers block by block, in time O(n² d) and memory O(block²).
package metrics
