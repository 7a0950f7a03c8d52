// Package compare says which groups of samples two embeddings of a data set see differently.
//
// With K1 and K2 the kernel matrices of the student (embedding 1) and the reference (embedding 2) over the same n
// samples, the eigenvectors of
//
//	L = (K1 - η K2) / n
//
// with large positive eigenvalues are groups that the student sees and the reference does not; those with large
// negative ones the converse (Definition 1 and Algorithm 1 of Jalali, Dibaei Nia and Farnia, "Towards an Explainable
// Comparison and Alignment of Feature Embeddings", ICML 2025, arXiv 2506.06231, called the paper here).
//
// Run does all of it. Its parts are functions that know nothing of one another, so that they can run in other
// processes:
//
//	plan    NewPlan     what is fixed before the first pass: bandwidths, random frequencies, landmarks
//	partial Plan.Moments  the joint second moments of a range of rows; Moments.Merge adds two of them
//	spectrum Moments.Spectrum  eigenvalues of L, and the directions u in the space of features
//	top     Plan.Scores   v = Φ u over a range of rows: the samples of each group; Scores.Merge joins two of them
//
// Memory is O(D² + block), D the number of features of both sides, whatever n is.
//
// The package reads no files: rows come from a Rows, which package features implements.
package compare
