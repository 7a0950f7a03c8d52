// Package version has the number of this release.
package version

// Number is that of the Python package, too.
const Number = "0.1.0"
