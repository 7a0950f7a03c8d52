// Package features reads the rows of an embedding from files, and writes a gradient to one.
//
//	.npy               NumPy's format, versions 1 to 3; C or Fortran order
//	.npz:KEY           an archive of those; stored members are mapped, deflated ones unpacked
//	.safetensors:KEY   Hugging Face's format
//	.parquet:COLUMN    a column of lists of numbers, all of one length; decoded page by page
//
// KEY names one matrix of several; where there is only one it may be left out. Elements are float16, float32, float64,
// and bfloat16 in .safetensors, little-endian, in two dimensions: one row a sample. Several files of one kind of rows
// make one data set, in the order given; a pattern stands for the files it matches, in the order of their names.
//
// Files are memory-mapped: what a computation does not touch is never read, and what was read is given back to the
// system before long. A file must not shrink while it is open, because the system ends a process that touches pages
// which are gone.
//
// Nothing in a file is believed before it was checked against the file's size. Every error that a file causes is an
// *align.InputError that names the file and says what to do.
package features
