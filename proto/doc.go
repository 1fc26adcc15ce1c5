// Package proto holds the .proto files, the script that generates their Go code, and the test that the two agree.
package proto
