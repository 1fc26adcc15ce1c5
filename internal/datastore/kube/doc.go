// Package kube is the datastore in the Kubernetes API (--datastore=kubernetes).
package kube
