#!/usr/bin/env bash
# namespace.sh COMMAND …: runs a command in a network and a mount namespace of its own, set up as istio-init sets up a pod:
# connections to ports 80 and 443 of 127.0.0.2 (the LLM and another host) are redirected to the sidecar, unless they are the proxy's own.
# Nothing outside the namespace changes. Needs root, openssl.
#   ISTIO_LAB  folder for what is made on the way      WASM  the module      REDIRECT  the command built from redirect/
set -euo pipefail
: "${ISTIO_LAB:?a folder}" "${WASM:?bursar.wasm}" "${REDIRECT:?a command}"
if [ -z "${IN_NAMESPACE:-}" ]; then
  exec env IN_NAMESPACE=1 unshare --mount --net --propagation private "$0" "$@"
fi

ip link set lo up
mkdir -p "$ISTIO_LAB/tls"
cat > "$ISTIO_LAB/hosts" <<'HOSTS'
127.0.0.1 localhost registry.local istiod.istio-system.svc redis.team-a.svc
127.0.0.2 api.openai.com other.example
HOSTS
mount --bind "$ISTIO_LAB/hosts" /etc/hosts

# The LLM's certificate, by an authority that the sidecar trusts as it trusts the machine's own.
cd "$ISTIO_LAB/tls"
if [ ! -f server.pem ]; then
  new_key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
  openssl req -x509 "${new_key[@]}" -keyout ca.key -out ca.pem -days 30 -subj '/CN=bursar test CA' 2> openssl.log
  openssl req "${new_key[@]}" -keyout server.key -out server.csr -subj '/CN=api.openai.com' 2>> openssl.log
  openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out server.pem \
    -extfile <(echo 'subjectAltName=DNS:api.openai.com,DNS:other.example') 2>> openssl.log
fi
bundle=/etc/ssl/certs/ca-certificates.crt
[ -f "$bundle" ] || { echo "$bundle is missing (Debian, Ubuntu: apt-get install ca-certificates)"; exit 1; }
cat "$bundle" ca.pem > bundle.pem
mount --bind bundle.pem "$bundle"

# As the ConfigMap's volume of istio/envoyfilter.yaml, and where pilot-agent keeps the modules that it fetches.
mount -t tmpfs tmpfs /var/local
mkdir -p /var/local/bursar /var/local/upper /var/local/work
cp "$WASM" /var/local/bursar/bursar.wasm
mount -t overlay overlay -o lowerdir=/var/lib,upperdir=/var/local/upper,workdir=/var/local/work /var/lib
mkdir -p -m 777 /var/lib/istio /var/lib/istio/data

# The proxy runs with the group 1337; its own connections go out as they are.
"$REDIRECT"
cd "$OLDPWD"
exec "$@"
