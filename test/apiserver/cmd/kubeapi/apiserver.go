package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

// runAPIServer is kube-apiserver as Kubernetes builds it. It returns its exit status.
func runAPIServer(args []string) int {
	os.Args = append([]string{"kube-apiserver"}, args...)
	return cli.Run(app.NewAPIServerCommand())
}
