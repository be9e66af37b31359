"""The OCI image of `make image`: its layout. tests/image has what needs a registry and a second build."""

import hashlib
import io
import json
import sys
import tarfile
import zlib

from harness.envoy import ROOT

sys.path.insert(0, str(ROOT / "envoy"))
import image  # noqa: E402

MODULE = b"\0asm\1\0\0\0" + bytes(range(256)) * 8


def blob(folder, descriptor):
    algorithm, digest = descriptor["digest"].split(":")
    data = (folder / "blobs" / algorithm / digest).read_bytes()
    assert hashlib.sha256(data).hexdigest() == digest and len(data) == descriptor["size"]
    return data


def test_the_module_is_the_one_file_of_the_one_layer(tmp_path):
    digest = image.write(MODULE, tmp_path / "oci", "1.2.3")
    (named,) = json.loads((tmp_path / "oci/index.json").read_text())["manifests"]
    assert named["digest"] == digest
    manifest = json.loads(blob(tmp_path / "oci", named))
    # Istio takes a layer of this type whose file has this name.
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    tar = zlib.decompress(blob(tmp_path / "oci", layer), wbits=31)
    with tarfile.open(fileobj=io.BytesIO(tar)) as files:
        assert files.getnames() == ["plugin.wasm"]
        assert files.extractfile("plugin.wasm").read() == MODULE
    config = json.loads(blob(tmp_path / "oci", manifest["config"]))
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(tar).hexdigest()]
    # Docker pulls for no other operating system.
    assert config["os"] == "linux"


def test_the_digest_follows_from_module_and_version_alone(tmp_path):
    # On every machine: another compressor, a time or an order by chance would change it.
    digests = [image.write(MODULE, tmp_path / name, "1.2.3") for name in ("a", "a", "b")]
    assert digests == ["sha256:7cdc24c1eb5fe4654303e73afb09dccb2143cd0fdb001e3f42d20dca5a5e3980"] * 3
    assert image.write(MODULE, tmp_path / "c", "1.2.4") != digests[0]
    assert image.write(MODULE + b"\0", tmp_path / "d", "1.2.3") != digests[0]
