#!/usr/bin/env bash
# publish.sh FOLDER REPOSITORY VERSION KEY: pushes FOLDER/oci, and signs the image, its SBOM and its provenance.
set -euo pipefail
folder=$1 repository=$2 version=$3 key=$4
image=$repository@$(cat "$folder/digest")
predicate=$(mktemp)
trap 'rm -f "$predicate"' EXIT
python3 -c 'import json, sys; json.dump(json.load(sys.stdin)["predicate"], sys.stdout)' < "$folder/provenance.json" > "$predicate"

crane push "$folder/oci" "$repository:$version" > "$folder/pushed"
[ "$(cat "$folder/pushed")" = "$image" ] || { echo "pushed $(cat "$folder/pushed") instead of $image"; exit 1; }
# The signatures need only the key: nothing is written to a public log.
signing=(--key "$key" --tlog-upload=false --yes)
cosign sign "${signing[@]}" "$image"
cosign attest "${signing[@]}" --type cyclonedx --predicate "$folder/bursar.cdx.json" "$image"
cosign attest "${signing[@]}" --type slsaprovenance1 --predicate "$predicate" "$image"
echo "==> $repository:$version is $image"
