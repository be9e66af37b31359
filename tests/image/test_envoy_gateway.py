"""envoy/envoy-gateway.yaml against the CustomResourceDefinition that Envoy Gateway ships. It is not run there."""

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULE = "github.com/envoyproxy/gateway@v1.9.1"
CRD = "charts/gateway-crds-helm/templates/generated/gateway.envoyproxy.io_envoyextensionpolicies.yaml"


def close(schema):
    """Kubernetes drops keys that it does not know; here they are mistakes."""
    if isinstance(schema, dict):
        is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
        if "properties" in schema and not is_open:
            schema["additionalProperties"] = False
        for inner in schema.values():
            close(inner)
    elif isinstance(schema, list):
        for inner in schema:
            close(inner)


@pytest.fixture(scope="module")
def schema():
    told = subprocess.run(["go", "mod", "download", "-json", MODULE], check=True, capture_output=True, text=True, cwd="/")
    text = (Path(json.loads(told.stdout)["Dir"]) / CRD).read_text(encoding="utf-8")
    # It is a template of Helm's, with a condition around the whole.
    crd = yaml.safe_load("\n".join(line for line in text.splitlines() if not line.startswith("{{")))
    (found,) = [each["schema"]["openAPIV3Schema"] for each in crd["spec"]["versions"] if each["name"] == "v1alpha1"]
    close(found["properties"]["spec"])
    return jsonschema.Draft202012Validator(found)


def policy():
    return yaml.safe_load((ROOT / "envoy/envoy-gateway.yaml").read_text(encoding="utf-8"))


def test_the_policy_is_one_that_envoy_gateway_takes(schema):
    schema.validate(policy())


def test_a_misspelt_key_is_found(schema):
    wrong = policy()
    wrong["spec"]["wasm"][0]["fail_open"] = True
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(wrong)
