//go:build tools

// Package tools pins kustomize for tests/support/install-kustomize.sh, with the hashes in go.sum.
// This version is the newest that Debian 12's own Go can build.
package tools

import _ "sigs.k8s.io/kustomize/kustomize/v5"
