#!/bin/sh
# Generates the Go code of every .proto file below this directory, next to it.
#
#   proto/generate.sh          write the generated code
#   proto/generate.sh -check   fail if the generated code in the tree is not what would be written
#
# The plugins are those of go.mod, built on the spot. protoc is Debian's: 3.21.12. Its version is
# written into the generated files, so another release shows up in -check as a difference; use the one below.
set -eu

want="libprotoc 3.21.12"
root=$(cd "$(dirname "$0")/.." && pwd)
check=
case "${1-}" in
'') ;;
-check) check=yes ;;
*) echo "usage: $0 [-check]" >&2; exit 2 ;;
esac

# libprotobuf-dev holds google/protobuf/*.proto; Debian only recommends it.
if ! command -v protoc >/dev/null || ! [ -f /usr/include/google/protobuf/timestamp.proto ]; then
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || {
		echo "protoc is missing: apt-get install protobuf-compiler libprotobuf-dev" >&2
		exit 1
	}
	install="apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev"
	$install >&2 || { apt-get update >&2 && $install >&2; }
fi
have=$(protoc --version)
[ "$have" = "$want" ] || echo "protoc: want $want, have $have; the generated headers will differ" >&2

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/bin" "$tmp/out"
cd "$root"
go build -o "$tmp/bin/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc

cd proto
files=$(find . -name '*.proto' | sort)
[ -n "$files" ] || { echo "no .proto file below $root/proto" >&2; exit 1; }
# shellcheck disable=SC2086 # the names of our own files hold no blanks
PATH="$tmp/bin:$PATH" protoc -I . \
	--go_out="$tmp/out" --go_opt=paths=source_relative \
	--go-grpc_out="$tmp/out" --go-grpc_opt=paths=source_relative \
	$files

if [ -z "$check" ]; then
	cp -R "$tmp/out/." .
	exit 0
fi

# Both ways: what would be written must be in the tree, and the tree must hold no generated file of a .proto that is gone.
(cd "$tmp/out" && find . -name '*.pb.go' | sort) >"$tmp/made"
find . -name '*.pb.go' | sort >"$tmp/kept"
bad=
diff -u "$tmp/kept" "$tmp/made" >&2 || bad=yes
while read -r f; do
	[ ! -f "$f" ] || diff -u "$f" "$tmp/out/$f" >&2 || bad=yes
done <"$tmp/made"
if [ -n "$bad" ]; then
	echo "generated code is not that of the .proto files: run proto/generate.sh and commit what it writes" >&2
	exit 1
fi
