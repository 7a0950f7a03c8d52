// Package align computes the SPEC-align penalty: how differently two embeddings of the same samples group them, and
// the gradient of that difference with respect to the rows of the first embedding.
//
// The two embeddings are called the student (embedding 1, the one trained or explained) and the reference
// (embedding 2). With K1 and K2 their (n, n) kernel matrices over the same n samples, everything here is a function
// of the difference
//
//	L = (K1 - η K2) / n
//
// of Definition 1, eq. 3, in Jalali, Dibaei Nia and Farnia, "Towards an Explainable Comparison and Alignment of
// Feature Embeddings", ICML 2025 (arXiv 2506.06231), called the paper in this documentation.
//
// A Session holds what survives from one minibatch to the next; Session.Step does one. The heavy work is done by a
// Backend: NewGo is the plain one of this package, package csrc has the one with SIMD kernels.
//
// The package is pure Go and reads no files and speaks no protocol.
package align
