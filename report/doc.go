// Package report writes what a comparison of two embeddings found as one HTML page for a person.
//
// The page is one file that needs no other: style sheet, program, data and pictures are inside, and its
// content-security policy forbids it to fetch anything. It is put together in four steps:
//
//	selection  which groups and samples are shown, and which points lie on the map: all shown samples and a uniform
//	           random part of the others, so that the page's size does not depend on n
//	geometry   the exact kernel matrices of those points in both embeddings, and from them distances inside groups,
//	           heat maps, nearest neighbours and where the map's layout starts
//	pictures   thumbnails, shrunk until the page is a few megabytes
//	page       an html/template, whose escaping is what makes any text or id harmless
//
// The charts are drawn in the browser by the program in web/, which lays the map out with UMAP as well. It is bundled by
// `make build` (npm and esbuild) and embedded here; where that has not been done, Write says so.
package report
