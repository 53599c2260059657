//go:build tools

// Package tools pins the program that starts the test node's containers.
package tools

import _ "github.com/opencontainers/runc"
