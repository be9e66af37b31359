"""What Istio's own template for injected sidecars makes of istio/pod-template.yaml: the module in the proxy's container."""

import json
import re
import subprocess

import lab
import pytest
import yaml

CHART = lab.ISTIO / "manifests/charts/istio-control/istio-discovery"


@pytest.fixture(scope="module")
def mesh():
    with lab.Mesh() as mesh:
        mesh.start()
        yield mesh


@pytest.fixture
def inject(mesh, tmp_path):
    """inject(template): a Deployment's pod template, as it is after injection."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    files = {
        "inject": {"policy": "enabled", "defaultTemplates": ["sidecar"],
                   "templates": {"sidecar": (CHART / "files/injection-template.yaml").read_text(encoding="utf-8")}},
        "values": values.get("_internal_defaults_do_not_set", values), "mesh": {}}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")

    def inject(template):
        document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "namespace": "team-a"},
                    "spec": {"selector": {"matchLabels": {"app": "app"}}, "template": template}}
        (tmp_path / "app.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        done = subprocess.run(
            [lab.BIN / "istioctl", "--kubeconfig", lab.LAB / "kubeconfig", "kube-inject", "-f", tmp_path / "app.yaml", "--injectConfigFile",
             tmp_path / "inject", "--meshConfigFile", tmp_path / "mesh", "--valuesFile", tmp_path / "values"],
            capture_output=True, text=True, timeout=lab.DEADLINE_SECONDS)
        assert done.returncode == 0, done.stderr
        (injected,) = [each for each in yaml.safe_load_all(done.stdout) if each]
        return injected["spec"]["template"]

    return inject


def shipped_template():
    (patch,) = lab.load(lab.ROOT / "istio/pod-template.yaml")
    template = patch["spec"]["template"]
    template["metadata"]["labels"]["app"] = "app"
    return {**template, "spec": {"containers": [{"name": "app", "image": "app"}]}}


def proxy_of(template):
    spec = template["spec"]
    (proxy,) = [each for each in [*spec["containers"], *spec.get("initContainers", [])] if each["name"] == "istio-proxy"]
    return proxy


def test_the_module_of_the_configmap_is_where_the_filter_looks_for_it(inject):
    template = inject(shipped_template())
    (volume,) = [each for each in template["spec"]["volumes"] if each.get("configMap", {}).get("name") == "bursar"]
    (mount,) = [each for each in proxy_of(template)["volumeMounts"] if each["name"] == volume["name"]]
    file = lab.plugin(lab.shipped_filter())["vm_config"]["code"]["local"]["filename"]
    assert file == f"{mount['mountPath']}/bursar.wasm" and mount["readOnly"] is True


def test_the_stores_password_gets_into_the_proxys_environment(inject):
    page = (lab.ROOT / "docs/replicas.md").read_text(encoding="utf-8")
    (said,) = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S) if "istio-proxy" in block]
    template = shipped_template()
    template["spec"]["containers"] += said["spec"]["containers"]
    assert said["spec"]["containers"][0]["env"][0] in proxy_of(inject(template))["env"]
