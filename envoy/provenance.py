"""Describes what is in an image, and how the image was built.   provenance.py FOLDER SBOM VERSION BUILDER

Of FOLDER/oci (image.py) and of what cargo-cyclonedx wrote it makes FOLDER/bursar.cdx.json, and FOLDER/provenance.json: an in-toto
statement with a SLSA predicate. They have no times and no paths, so that whoever builds the same commit gets the same, but for the
builder's name.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD_TYPE = "urn:bursar:make-image:v1"


def told(*command) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def source() -> list:
    """The commit, if this is a clone. With uncommitted changes, the source differs from the commit."""
    try:
        commit = told("git", "rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return []
    found = {"name": "bursar", "digest": {"gitCommit": commit}}
    if told("git", "status", "--porcelain"):
        found["annotations"] = {"changed": True}
    return [found]


def compiler() -> dict:
    channel = re.search(r'^channel = "(.*)"', (ROOT / "rust-toolchain.toml").read_text(encoding="utf-8"), re.M)[1]
    commit = re.search(r"^commit-hash: (\w+)", told("rustup", "run", channel, "rustc", "-vV"), re.M)[1]
    return {"name": "rustc", "uri": f"pkg:generic/rustc@{channel}", "digest": {"gitCommit": commit}}


def optimiser() -> dict:
    lock = json.loads((ROOT / "target/tools/binaryen/package-lock.json").read_text(encoding="utf-8"))
    package = lock["packages"]["node_modules/binaryen"]
    sha512 = base64.b64decode(package["integrity"].removeprefix("sha512-")).hex()
    return {"name": "wasm-opt", "uri": f"pkg:npm/binaryen@{package['version']}", "digest": {"sha512": sha512}}


def crates(sbom: dict) -> list:
    return [{"uri": component["purl"], "digest": {"sha256": component["hashes"][0]["content"]}}
            for component in sbom["components"]]


def statement(digest: str, sbom: dict, version: str, builder: str) -> dict:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "bursar", "digest": {"sha256": digest.removeprefix("sha256:")}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"command": "make image", "version": version},
                "resolvedDependencies": [*source(), compiler(), optimiser(), *crates(sbom)]},
            "runDetails": {"builder": {"id": builder}}}}


def portable(sbom: str) -> str:
    """The SBOM without the path of the build folder, which cargo-cyclonedx writes into the package's name."""
    package = json.loads(sbom)["metadata"]["component"]
    return sbom.replace(json.dumps(package["bom-ref"])[1:-1], f"{package['name']}@{package['version']}")


def main(folder: Path, sbom: Path, version: str, builder: str) -> None:
    (manifest,) = json.loads((folder / "oci/index.json").read_text(encoding="utf-8"))["manifests"]
    text = portable(sbom.read_text(encoding="utf-8"))
    (folder / "bursar.cdx.json").write_text(text, encoding="utf-8")
    made = statement(manifest["digest"], json.loads(text), version, builder)
    (folder / "provenance.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
