//go:build race

package gobgp_test

const raceBuild = true
