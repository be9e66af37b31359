"""Makes an OCI image of the module, which Istio's agent, Envoy Gateway and `docker pull` accept.   image.py MODULE FOLDER VERSION

Writes the image layout FOLDER/oci, whose only layer contains the module as `plugin.wasm`, and prints the image's digest. The same module
and version give the same digest everywhere: the image has no times and no random order, and the compressor's version is pinned.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import tarfile
from pathlib import Path

import zopfli.gzip

OCI = "application/vnd.oci.image"
TITLE = "org.opencontainers.image"


def layer_of(module: bytes) -> bytes:
    """The layer as an uncompressed tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        entry = tarfile.TarInfo("plugin.wasm")
        entry.size, entry.mode, entry.mtime = len(module), 0o644, 0
        tar.addfile(entry, io.BytesIO(module))
    return out.getvalue()


def as_json(value) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def write(module: bytes, folder: Path, version: str) -> str:
    """Writes the layout, in place of all that was in the folder, and returns the manifest's digest."""
    shutil.rmtree(folder, ignore_errors=True)
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    tar = layer_of(module)
    layer = blob(zopfli.gzip.compress(tar), "layer.v1.tar+gzip")
    # Docker does not pull images for the operating system `wasi`. The module is the same on every machine.
    config = blob(as_json({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]}}), "config.v1+json")
    manifest = blob(as_json({
        "schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": config, "layers": [layer],
        "annotations": {f"{TITLE}.title": "bursar", f"{TITLE}.version": version, f"{TITLE}.licenses": "Apache-2.0"}}),
        "manifest.v1+json")
    (folder / "oci-layout").write_bytes(as_json({"imageLayoutVersion": "1.0.0"}))
    named = {**manifest, "annotations": {f"{TITLE}.ref.name": version}}
    (folder / "index.json").write_bytes(as_json({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [named]}))
    return manifest["digest"]


if __name__ == "__main__":
    print(write(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]) / "oci", sys.argv[3]))
