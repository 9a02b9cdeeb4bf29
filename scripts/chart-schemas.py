#!/usr/bin/env python3
"""Makes JSON Schemas for kubeconform, from the OpenAPI document of Kubernetes and from CRDs.

    scripts/chart-schemas.py FOLDER ZIP:PATH-OF-SWAGGER ZIP:FOLDER-OF-CRDS...

Each schema stands alone and refuses unknown fields. A PATH is one inside the zip file of a Go module.
"""

import json
import pathlib
import sys
import zipfile

import yaml

EITHER = {"oneOf": [{"type": "string"}, {"type": "number"}]}
TEXT_OR_NUMBER = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
}
KEPT = ("type", "enum", "required", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems")
COMBINED = ("oneOf", "anyOf", "allOf")

# A lone `=` has a type of its own in YAML 1.1. Some CRDs have it in a list of operators.
yaml.SafeLoader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: loader.construct_scalar(node))


def condition(schema):
    """A schema that adds conditions to the fields that are known beside it."""
    result = {key: schema[key] for key in KEPT if key in schema}
    if "properties" in schema:
        result["properties"] = {name: condition(of) for name, of in schema["properties"].items()}
    return combined(schema, result)


def combined(schema, result):
    for key in COMBINED:
        if key in schema:
            result[key] = [condition(part) for part in schema[key]]
    if "not" in schema:
        result["not"] = condition(schema["not"])
    return result


def strict(schema, definitions, within=()):
    """The schema without references, which refuses unknown fields."""
    reference = schema.get("$ref", "").rsplit("/", 1)[-1]
    if reference in TEXT_OR_NUMBER or schema.get("x-kubernetes-int-or-string"):
        return EITHER
    if reference:
        if reference in within:
            # A type that contains itself: any object is accepted.
            return {}
        return strict(definitions[reference], definitions, (*within, reference))
    result = combined(schema, {key: schema[key] for key in KEPT if key in schema})
    if "items" in schema:
        result["items"] = strict(schema["items"], definitions, within)
    if "properties" in schema:
        result["properties"] = {name: strict(of, definitions, within) for name, of in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = strict(schema["additionalProperties"], definitions, within)
    if isinstance(result.get("type"), str):
        # For Kubernetes, null is the same as a missing field.
        result["type"] = [result["type"], "null"]
    return result


def main(folder, swagger, *crds):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)

    def write(kind, group, version, schema):
        # The name as kubeconform forms it: the first part of the group only.
        name = "-".join(filter(None, [kind.lower(), group.split(".")[0], version]))
        (folder / f"{name}.json").write_text(json.dumps(schema), encoding="utf-8")

    archive, path = swagger.split(":", 1)
    definitions = json.loads(zipfile.ZipFile(archive).read(path))["definitions"]
    for name, schema in definitions.items():
        kinds = schema.get("x-kubernetes-group-version-kind", [])
        if len(kinds) == 1 and "properties" in schema and not name.endswith("List"):
            write(kinds[0]["kind"], kinds[0]["group"], kinds[0]["version"], strict(schema, definitions, (name,)))

    metadata = strict({"$ref": "/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}, definitions)
    for source in crds:
        archive, prefix = source.split(":", 1)
        with zipfile.ZipFile(archive) as files:
            paths = [path for path in files.namelist() if path.startswith(prefix) and path.endswith(".yaml")]
            texts = [files.read(path) for path in paths]
        for crd in (crd for text in texts for crd in yaml.safe_load_all(text)):
            if not crd or crd.get("kind") != "CustomResourceDefinition":
                continue
            for version in crd["spec"]["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"], definitions)
                schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": metadata}
                write(crd["spec"]["names"]["kind"], crd["spec"]["group"], version["name"], schema)


main(*sys.argv[1:])
