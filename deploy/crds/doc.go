// Package crds holds the definitions of Calico's resources, in our own words, for clusters that have no Calico and for
// tests: classic.yaml in the API group crd.projectcalico.org/v1, native.yaml in projectcalico.org/v3. They are made from
// published facts about Calico's schemas and keep what they do not know, so that a manifest made for Calico goes through
// unchanged. On a cluster with Calico they must not be installed: Calico brings its own.
package crds

import _ "embed"

// Classic is the manifest of the definitions of crd.projectcalico.org/v1.
//
//go:embed classic.yaml
var Classic []byte

// Native is the manifest of the definitions of projectcalico.org/v3, with Calico's rules.
//
//go:embed native.yaml
var Native []byte
