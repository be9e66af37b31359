"""`make image` and `make publish` with a real registry and cosign.

    make test-image
"""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.request
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "target/image"
VERSION = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(encoding="utf-8"), re.M)[1]
KEYS = {"COSIGN_PASSWORD": ""}
UNLOGGED = "--insecure-ignore-tlog=true"


def run(*command, folder=ROOT, environment=None, is_good=True):
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, **(environment or {})})
    assert (done.returncode == 0) == is_good, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done


def make(*words, folder=ROOT, environment=None):
    # Not the job server and the variables of the `make` that runs this.
    clean = {"MAKEFLAGS": "", "MFLAGS": "", "MAKELEVEL": "", "CARGO_TARGET_DIR": ""}
    return run("make", *words, folder=folder, environment={**clean, **(environment or {})})


def digest_of(folder=IMAGE):
    return (folder / "digest").read_text(encoding="utf-8").strip()


def sbom_of(folder=IMAGE):
    return (folder / "bursar.cdx.json").read_text(encoding="utf-8")


def provenance_of(folder=IMAGE):
    return json.loads((folder / "provenance.json").read_text(encoding="utf-8"))


# --- what is made ------------------------------------------------------------


def test_another_folder_and_another_home_give_the_same_bytes(tmp_path):
    elsewhere = tmp_path / "a folder of another name" / "bursar"
    for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines():
        if (ROOT / name).exists():
            (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, elsewhere / name)
    (elsewhere / "target").mkdir()
    (elsewhere / "target/tools").symlink_to((ROOT / "target/tools").resolve())
    # Crates that lie elsewhere, as in another user's home; what they are is the same.
    cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    home = tmp_path / "cargo"
    home.mkdir()
    (home / "registry").symlink_to(cargo / "registry")

    make("image", folder=elsewhere, environment={"CARGO_HOME": str(home), "RUSTUP_HOME": rustup_home()})
    assert (elsewhere / "target/bursar.wasm").read_bytes() == (ROOT / "target/bursar.wasm").read_bytes()
    assert digest_of(elsewhere / "target/image") == digest_of()
    assert sbom_of(elsewhere / "target/image") == sbom_of()
    # A copy is no clone, so it has no commit to name.
    here = provenance_of()
    dependencies = here["predicate"]["buildDefinition"]["resolvedDependencies"]
    dependencies[:] = [each for each in dependencies if each.get("name") != "bursar"]
    assert provenance_of(elsewhere / "target/image") == here


def rustup_home():
    return os.environ.get("RUSTUP_HOME") or str(Path.home() / ".rustup")


def test_nothing_of_this_machine_is_in_it():
    texts = [(ROOT / "target/bursar.wasm").read_bytes(), sbom_of().encode(), json.dumps(provenance_of()).encode()]
    for text in texts:
        for path in (str(ROOT), str(Path.home()) + "/", rustup_home()):
            assert path.encode() not in text, path


def test_the_sbom_is_valid_and_names_every_crate_of_the_module():
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(sbom_of()) is None
    tree = run("cargo", "tree", "--locked", "--target", "wasm32-wasip1", "--edges", "normal", "--prefix", "none",
               "--format", "{p}").stdout
    used = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    named = {(each["name"], "v" + each["version"]) for each in json.loads(sbom_of())["components"]}
    assert len(used) > 10
    assert used - {("bursar", "v" + VERSION)} <= named
    assert all(each["hashes"] for each in json.loads(sbom_of())["components"])


def test_the_provenance_is_a_statement_about_this_image():
    parsed = json_format.ParseDict(provenance_of(), statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()
    assert f"sha256:{provenance_of()['subject'][0]['digest']['sha256']}" == digest_of()
    dependencies = provenance_of()["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert dependencies[0]["digest"]["gitCommit"] == run("git", "rev-parse", "HEAD").stdout.strip()
    assert all(each["digest"] for each in dependencies)


# --- pushed, pulled, signed ----------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A registry's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % free.getsockname()[1]
    folder = tmp_path_factory.mktemp("registry")
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(["crane", "registry", "serve", "--address", address, "--disk", str(folder)],
                                   stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://{address}/v2/", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.05)   # between two questions, not for a state to come
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two pairs: the publisher's, and another one."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("publisher", "other"):
        run("cosign", "generate-key-pair", "--output-key-prefix", name, folder=folder, environment=KEYS)
    return folder


@pytest.fixture(scope="module")
def published(registry, keys):
    """The image's name by its tag."""
    repository = f"{registry}/bursar"
    make("publish", f"TO={repository}", f"KEY={keys / 'publisher.key'}", environment=KEYS)
    return f"{repository}:{VERSION}"


def by_digest(published):
    return f"{published.rsplit(':', 1)[0]}@{digest_of()}"


def test_what_is_pulled_is_what_was_pushed(published, tmp_path):
    assert run("crane", "digest", published).stdout.strip() == digest_of()
    run("crane", "validate", "--remote", published)
    run("crane", "export", published, tmp_path / "files.tar")
    with tarfile.open(tmp_path / "files.tar") as files:
        assert files.getnames() == ["plugin.wasm"]
        assert files.extractfile("plugin.wasm").read() == (ROOT / "target/bursar.wasm").read_bytes()


def verify(kind, key, image, *more, is_good=True):
    return run("cosign", kind, "--key", key, UNLOGGED, *more, image, is_good=is_good)


def test_the_signature_is_the_publishers_alone(published, keys):
    said = verify("verify", keys / "publisher.pub", published, "--output", "json")
    (signed,) = json.loads(said.stdout)
    assert signed["critical"]["image"]["docker-manifest-digest"] == digest_of()
    verify("verify", keys / "other.pub", published, is_good=False)


@pytest.mark.parametrize("kind", ["cyclonedx", "slsaprovenance1"])
def test_what_is_attested_is_what_was_made(published, keys, kind):
    said = verify("verify-attestation", keys / "publisher.pub", by_digest(published), "--type", kind)
    payload = json.loads(base64.b64decode(json.loads(said.stdout)["payload"]))
    made = json.loads(sbom_of()) if kind == "cyclonedx" else provenance_of()["predicate"]
    if kind != "cyclonedx":
        made["runDetails"]["metadata"] = {}   # cosign's
    assert payload["predicate"] == made
    assert f"sha256:{payload['subject'][0]['digest']['sha256']}" == digest_of()
    verify("verify-attestation", keys / "other.pub", by_digest(published), "--type", kind, is_good=False)


def test_another_image_under_the_same_tag_is_found_out(published, keys, tmp_path):
    python = ROOT / "target/tools/venv/bin/python"
    (tmp_path / "other.wasm").write_bytes((ROOT / "target/bursar.wasm").read_bytes() + b"\0")
    run(python, ROOT / "envoy/image.py", tmp_path / "other.wasm", tmp_path, VERSION)
    run("crane", "push", tmp_path / "oci", published)
    try:
        verify("verify", keys / "publisher.pub", published, is_good=False)
    finally:
        run("crane", "push", IMAGE / "oci", published)
    verify("verify", keys / "publisher.pub", published)
