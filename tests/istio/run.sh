#!/usr/bin/env bash
# Builds istiod, pilot-agent and istioctl of one version, and a kube-apiserver, unless that was done before, and runs the tests of this
# folder.
#   run.sh FOLDER PYTHON ENVOY MODULE [pytest's arguments]      FOLDER keeps what is built (some 6 GB)
set -euo pipefail
# The newest that the Go module proxy serves: Istio's branch release-1.31, after 1.31.0-rc.0.
version=v0.0.0-20260827124520-eed52ebb66ad
# As kubectl's `apply -k` has it built in.
kustomize_version=v5.8.1
here=$(cd "$(dirname "$0")" && pwd)
folder=$(realpath -m "$1") python=$2 envoy=$(realpath "$3") module=$(realpath "$4")
shift 4

need() { command -v "$1" > /dev/null || { echo "$1 is missing: $2"; exit 1; }; }
[ "$(id -u)" = 0 ] || { echo 'make istio needs root: it makes a network namespace and redirects its traffic, as istio-init does'; exit 1; }
need go 'install Go 1.26 or later from https://go.dev/dl'
need openssl 'Debian, Ubuntu: apt-get install openssl'
need unshare 'Debian, Ubuntu: apt-get install util-linux'
need ip 'Debian, Ubuntu: apt-get install iproute2'
need crane 'make istio builds it'

export GOPATH=$folder/gopath GOCACHE=$folder/gocache GOBIN=$folder/bin-$version GOFLAGS='-mod=mod -modcacherw -buildvcs=false' GOTOOLCHAIN=local
commands=(pilot/cmd/pilot-agent istioctl/cmd/istioctl pilot/cmd/pilot-discovery)
for at in "${!commands[@]}"; do
  command=${commands[$at]}
  if [ ! -x "$GOBIN/${command##*/}" ]; then
    echo "==> building ${command##*/}, $((at + 1)) of ${#commands[@]} (all of them: about ten minutes on two cores, 3 GB)"
    go install -ldflags='-s -w' "istio.io/istio/$command@$version"
  fi
done

kustomize=$GOBIN/kustomize-$kustomize_version
if [ ! -x "$kustomize" ]; then
  echo '==> building kustomize'
  go install -ldflags='-s -w' "sigs.k8s.io/kustomize/kustomize/v5@$kustomize_version"
  mv "$GOBIN/kustomize" "$kustomize"
fi

# What istio-init does by iptables; without the command.
redirect=$GOBIN/redirect
[ "$redirect" -nt "$here/redirect/main.go" ] || (cd "$here/redirect" && go build -o "$redirect" .)

# kube-apiserver and etcd, by the versions in its go.mod; its name has their checksum.
apiserver=$GOBIN/apiserver-$(cat "$here"/apiserver/{go.mod,go.sum,main.go} | sha256sum | cut -c1-12)
if [ ! -x "$apiserver" ]; then
  echo '==> building kube-apiserver and etcd (about ten minutes on two cores, 2 GB)'
  (cd "$here/apiserver" && go build -mod=readonly -ldflags='-s -w' -o "$apiserver" .)
fi

modules=$GOPATH/pkg/mod
source=$modules/istio.io/istio@$version
gateway_api=$(awk '$1 == "sigs.k8s.io/gateway-api" {print $2}' "$source/go.mod")
export ISTIO_LAB=$folder/lab ISTIO_BIN=$GOBIN ISTIO_SOURCE=$source ENVOY=$envoy WASM=$module REDIRECT=$redirect KUSTOMIZE=$kustomize
export APISERVER=$apiserver
export GATEWAY_API_SOURCE=$modules/sigs.k8s.io/gateway-api@$gateway_api/config/crd/standard
mkdir -p "$ISTIO_LAB"
echo "==> tests in $("$envoy" --version | grep -o 'version: [^ ]*') under Istio $version"
exec "$here/namespace.sh" "$python" -m pytest -p no:cacheprovider "$here" "$@"
