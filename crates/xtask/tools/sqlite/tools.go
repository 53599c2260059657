//go:build tools

// Package tools pins the C source that a sample builds inside the sandbox.
package tools

import _ "github.com/mattn/go-sqlite3"
