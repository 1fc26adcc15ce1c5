// Package file is the datastore in a directory of manifests (--datastore=file:DIR).
package file
