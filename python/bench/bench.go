// Package bench carries the Python code that the engine is measured against.
package bench

import _ "embed"

// Rivals is rivals.py.
//
//go:embed rivals.py
var Rivals string
