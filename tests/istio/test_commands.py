"""The commands of docs/istio.md, from nothing to a metered namespace and back: each is run, by the means of this lab."""

import json
import re
import shlex
import subprocess

import lab
import pytest
import yaml

PAGE = (lab.ROOT / "docs/istio.md").read_text(encoding="utf-8")
UNMETERED = lab.Pod(labels=(("app", "app"),))


def commands(heading):
    """(command, what it prints) of a section."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## )", PAGE, re.M | re.S)
    found = []
    for block in re.findall(r"^ *```console\n(.*?)^ *```$", section, re.M | re.S):
        for line in block.splitlines():
            if line.strip().startswith("$ "):
                found.append([re.sub(r" {2,}# .*", "", line.strip()[2:]), ""])
            else:
                found[-1][1] += line.strip() + "\n"
    return [tuple(each) for each in found]


class Platform:
    """What a platform team's shell does, on this machine."""

    def __init__(self, mesh):
        self.mesh = mesh
        self.configmaps = set()

    def files(self, words):
        return [document for flag, name in zip(words, words[1:]) if flag == "-f" for document in lab.load(lab.ROOT / name)]

    def run(self, command):
        words = shlex.split(command)
        if words[:2] == ["make", "wasm"]:
            assert (lab.ROOT / "target/bursar.wasm").exists()
        elif words[0] == "istioctl":
            return self.shell([lab.BIN / "istioctl", *words[1:]])
        elif words[:2] == ["kubectl", "apply"]:
            lab.apply(*self.files(words))
        elif words[:2] == ["kubectl", "delete"]:
            for document in self.files(words):
                lab.delete(document)
        elif words[:3] == ["kubectl", "-n", "team-a"]:
            return getattr(self, "in_namespace_" + words[3])(words[4:])
        else:
            raise AssertionError(f"no means to run {command!r}")
        return ""

    def shell(self, words):
        done = subprocess.run([str(word) for word in words], cwd=lab.ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def in_namespace_create(self, words):
        assert words[0] == "configmap"
        name, path = words[2].removeprefix("--from-file=").split("=")
        # namespace.sh has put the same file where the ConfigMap's volume is mounted.
        assert name == "bursar.wasm" and (lab.ROOT / path).stat().st_size < 1 << 20
        self.configmaps.add(words[1])
        return ""

    def in_namespace_delete(self, words):
        assert words[0] == "configmap"
        self.configmaps.remove(words[1])
        return ""

    def in_namespace_patch(self, words):
        """A changed template: the pod is exchanged."""
        assert words[:2] == ["deployment", "app"]
        if words[2] == "--patch-file":
            template = yaml.safe_load((lab.ROOT / words[3]).read_text(encoding="utf-8"))["spec"]["template"]["metadata"]
        else:
            template = json.loads(words[words.index("-p") + 1])["spec"]["template"]["metadata"]
        volume = (template.get("annotations") or {}).get("sidecar.istio.io/userVolume")
        if volume:
            assert json.loads(volume)[0]["configMap"]["name"] in self.configmaps
        labels = {"app": "app", **{name: value for name, value in template["labels"].items() if value}}
        self.mesh.stop_proxy()
        pod = lab.Pod(labels=tuple(labels.items()))
        self.mesh.add_pod(pod)
        self.mesh.start_proxy(pod, annotations=template.get("annotations"), is_awaited=False)
        return ""

    def in_namespace_rollout(self, _):
        lab.until(self.mesh.is_proxy_ready, "the new pod to be ready")
        return ""

    def in_namespace_exec(self, words):
        return self.shell(words[words.index("--") + 1:])


@pytest.fixture(scope="module")
def platform():
    with lab.Mesh() as mesh:
        mesh.start()
        mesh.add_pod(UNMETERED)
        mesh.start_proxy(UNMETERED)
        yield Platform(mesh)


def test_ten_commands_meter_a_namespace_and_a_few_undo_it(platform):
    there, back = commands("Ten commands"), commands("And back")
    assert len(there) == 10
    assert lab.over_https() == 200, "before bursar"
    for command, told in there:
        # Asked again only where what is told is not there yet: counters are a second behind.
        lab.until(lambda: {*told.splitlines()} <= {*platform.run(command).splitlines()}, f"{told!r} of {command}")
    assert lab.over_https() is None, "the way round is closed"
    for command, _ in back:
        platform.run(command)
    lab.until(lambda: lab.over_https() == 200, "the way round to be open again")
    assert platform.configmaps == set()
