//go:build tools

// Package tools pins the Kubernetes programs that a test cluster with nodes runs beside the API server. A module of its own, so
// that what a node needs does not touch the (slow) build of the API server.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubelet"
)
