#!/usr/bin/env python3
"""Checks the rendered objects of the Helm chart, file by file.

    scripts/chart.py [--program MILLRACE] FILE...

- Pods fit the Pod Security Standard `restricted` (https://kubernetes.io/docs/concepts/security/pod-security-standards/), have a
  read-only root file system, and mount no token of Kubernetes.
- Passwords of the value files, all of which are `never-shown`, are in Secrets only.
- Every object is in the namespace or cluster of the release, and no two have one name.
- Labels that select pods select some: of Services, PodDisruptionBudgets and NetworkPolicies.
- `MILLRACE config check` accepts each configuration, with the files of its Secrets.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
PASSWORD = "never-shown"
ALLOWED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
}


def pod_of(item):
    return item.get("spec", {}).get("template") if item["kind"] in ("Deployment", "StatefulSet", "Job") else None


def security_faults(pod):
    """Each rule of `restricted` that the pod breaks."""
    spec = pod["spec"]
    of_pod = spec.get("securityContext", {})
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{key} is true"
    if of_pod.get("sysctls"):
        yield "sysctls are set"
    if spec.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken is not false"
    for volume in spec.get("volumes", []):
        for kind in set(volume) - {"name"} - ALLOWED_VOLUMES:
            yield f"volume {volume['name']}: {kind} is not an allowed kind"
    for container in spec.get("initContainers", []) + spec["containers"]:
        own = container.get("securityContext", {})
        name = container["name"]
        rules = {
            "privileged is set": own.get("privileged"),
            "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is not False,
            "capabilities.drop is not [ALL]": own.get("capabilities", {}).get("drop") != ["ALL"],
            "capabilities are added": own.get("capabilities", {}).get("add"),
            "runAsNonRoot is not true": own.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is not True,
            "runAsUser is 0": own.get("runAsUser", of_pod.get("runAsUser")) == 0,
            "seccompProfile is not RuntimeDefault":
                own.get("seccompProfile", of_pod.get("seccompProfile", {})).get("type") != "RuntimeDefault",
            "readOnlyRootFilesystem is not true": own.get("readOnlyRootFilesystem") is not True,
            "a port of the host is used": any(port.get("hostPort") for port in container.get("ports", [])),
            "there is no limit of memory": "memory" not in container.get("resources", {}).get("limits", {}),
        }
        for rule, is_broken in rules.items():
            if is_broken:
                yield f"container {name}: {rule}"


def selects(selector, labels):
    """Whether a selector of labels selects these."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(labels.get(of["key"]) in of["values"] for of in selector.get("matchExpressions", []))


def selectors(item):
    """The selectors of an object that must select pods of the release."""
    spec = item.get("spec", {})
    match item["kind"]:
        case "Service":
            yield {"matchLabels": spec["selector"]}
        case "PodDisruptionBudget" | "PodMonitor" | "Deployment" | "StatefulSet":
            yield spec["selector"]
        case "NetworkPolicy":
            yield spec["podSelector"]
    if pod := pod_of(item):
        for constraint in pod["spec"].get("topologySpreadConstraints", []):
            yield constraint["labelSelector"]


def configuration_faults(items, program):
    """What the program reports about the configuration of each container."""
    by_name = {(item["kind"], item["metadata"]["name"]): item for item in items}

    def url_of(secret, key, path):
        if found := by_name.get(("Secret", secret)):
            return found["stringData"][key]
        # A Secret that the chart does not make.
        broker = "kafka://kafka:9092" if "kafka" in secret else "rabbitmq://rabbitmq"
        return "redis://redis:6379" if path == "ledger" else broker

    for item in items:
        pod = pod_of(item)
        if not pod or item["metadata"]["name"].endswith("-redis"):
            continue
        container = pod["spec"]["containers"][0]
        config = next(volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if volume["name"] == "config")
        # The models of the test are not on this machine, and their folder would be the first fault.
        document = yaml.safe_load(by_name[("ConfigMap", config)]["data"]["millrace.yaml"])
        for pool in document["pools"].values():
            if pool["model"].startswith("/"):
                pool["model"] = "echo"
        # `config check` opens no file for TLS.
        mount = next(of["mountPath"] for of in container["volumeMounts"] if of["name"] == "urls")
        volume = next(of["projected"] for of in pod["spec"]["volumes"] if of["name"] == "urls")
        with tempfile.TemporaryDirectory() as folder:
            for secret in (source["secret"] for source in volume["sources"]):
                for of in secret["items"]:
                    url = url_of(secret["name"], of["key"], of["path"])
                    pathlib.Path(folder, of["path"]).write_text(f"{url}\n", encoding="utf-8")
            file = pathlib.Path(folder, "millrace.yaml")
            file.write_text(yaml.safe_dump(document, width=1000).replace(f"{mount}/", f"{folder}/"), encoding="utf-8")
            result = subprocess.run(
                [program, "config", "check", "--config", file],
                cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
            )
        if result.returncode != 0:
            yield f"{item['metadata']['name']}: {result.stderr.strip()}"


def faults(file, program):
    items = [item for item in yaml.safe_load_all(file.read_text(encoding="utf-8")) if item]
    names = [(item["kind"], item["metadata"]["name"]) for item in items]
    for name in {name for name in names if names.count(name) > 1}:
        yield f"{name} is rendered twice"
    pods = [pod["metadata"]["labels"] for item in items if (pod := pod_of(item))]
    for item in items:
        name = f"{item['kind']} {item['metadata']['name']}"
        if item["kind"] != "Secret" and PASSWORD in yaml.safe_dump(item):
            yield f"{name}: has a password"
        if item["kind"] in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
            yield f"{name}: no process needs the API of Kubernetes"
        for selector in selectors(item):
            if not any(selects(selector, labels) for labels in pods):
                yield f"{name}: selects no pod: {selector}"
        if pod := pod_of(item):
            for fault in security_faults(pod):
                yield f"{name}: {fault}"
    if program:
        yield from configuration_faults(items, program)


def main(arguments):
    program = None
    if arguments[:1] == ["--program"]:
        program, arguments = arguments[1], arguments[2:]
    found = [f"{file}: {fault}" for file in map(pathlib.Path, arguments) for fault in faults(file, program)]
    for fault in found:
        print(f"chart: {fault}", file=sys.stderr)
    if found:
        sys.exit(1)
    print("chart: pods fit the standard `restricted`, and passwords are in Secrets only")
    if program:
        print("chart: the program accepts each configuration")


main(sys.argv[1:])
