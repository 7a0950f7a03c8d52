// Package trainer trains students in Go: the penalty as an operation of a Gorgonia graph.
package trainer
