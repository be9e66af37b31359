"""istio/kustomization.yaml, as `kubectl apply -k` builds it: the files as they are, or for another namespace."""

import os
import shutil
import subprocess

import lab
import pytest
import yaml

SHIPPED = lab.ROOT / "istio"
TEAM_B = lab.Pod(namespace="team-b")


@pytest.fixture(scope="module")
def mesh():
    with lab.Mesh() as mesh:
        mesh.start(lab.other_host())
        yield mesh


def build(folder):
    done = subprocess.run([os.environ["KUSTOMIZE"], "build", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def named(documents):
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def for_team_b(folder):
    """The shipped files with the one change that the page names, and a Deployment that gets the patch for its pods."""
    shutil.copytree(SHIPPED, folder / "istio")
    place = folder / "istio/kustomization.yaml"
    text = place.read_text(encoding="utf-8")
    assert text.count("namespace: team-a") == 1
    text = text.replace("namespace: team-a", "namespace: team-b")
    place.write_text(text + "- app.yaml\npatches:\n- path: pod-template.yaml\n", encoding="utf-8")
    app = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app"}, "spec": {
        "selector": {"matchLabels": {"app": "app"}},
        "template": {"metadata": {"labels": {"app": "app"}}, "spec": {"containers": [{"name": "app", "image": "app"}]}}}}
    (folder / "istio/app.yaml").write_text(yaml.safe_dump(app), encoding="utf-8")
    return build(folder / "istio")


def test_it_has_the_files_as_they_are(tmp_path):
    kustomization = yaml.safe_load((SHIPPED / "kustomization.yaml").read_text(encoding="utf-8"))
    files = [document for name in kustomization["resources"] for document in lab.load(SHIPPED / name)]
    built = build(SHIPPED)
    assert named(yaml.safe_load_all(built)) == named(files)
    (tmp_path / "all.yaml").write_text(built, encoding="utf-8")
    said = subprocess.run([lab.BIN / "istioctl", "validate", "-f", tmp_path / "all.yaml"], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


def test_one_change_moves_all_of_it_to_another_namespace_and_it_meters_there(tmp_path, pod):
    built = named(yaml.safe_load_all(for_team_b(tmp_path)))
    assert {document["metadata"]["namespace"] for document in built.values()} == {"team-b"}
    template = built.pop(("Deployment", "app"))["spec"]["template"]["metadata"]
    assert template["labels"] == dict(TEAM_B.labels)
    assert "sidecar.istio.io/userVolume" in template["annotations"]
    pod(*built.values(), pod=TEAM_B)
    assert (lab.ask("acme").decision, lab.ask(None).status) == ("admit", 401)
    assert lab.over_https() is None
