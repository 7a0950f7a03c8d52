// Package validate asks whether groups of samples are groups in an embedding, without looking at how they were found:
// section 6 and appendix B of Jalali, Dibaei Nia and Farnia, "Towards an Explainable Comparison and Alignment of
// Feature Embeddings", ICML 2025 (arXiv 2506.06231), called the paper.
//
// The groups are those of one end of the spectrum of L: positive eigenvalues for what the student groups and the
// reference does not. Then the student's figures should be high and the reference's low; for negative ones the
// converse.
//
//	K-means          how well 50 runs find the groups again: AMI and NMI against them, mean and standard deviation
//	distances        inside a group, with the mean distance of any two samples of the data set as the unit
//	ranking          how often a sample of a group is nearer to four others of it than a sample drawn from all is
//	heat map         the kernel matrix of the groups' samples, sorted by group
//	kernel PCA       the groups of one embedding on its own
//
// Everything is over the samples of the groups and a few drawn from all, which fit into memory; sums are in float64.
package validate
