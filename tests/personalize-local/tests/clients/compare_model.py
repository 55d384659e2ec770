"""Compares the stand-in's table of operations (JSON on standard input) with botocore's service model."""

import json
import sys

import botocore.session


def differences(kind, shape, path):
    if isinstance(kind, str):
        ours, rule = kind, None
    else:
        ((ours, rule),) = kind.items()
    theirs = shape.metadata
    types = {"text": "string", "choice": "string", "flag": "boolean", "count": "integer", "structure": "structure", "list": "list"}
    if types[ours] != shape.type_name:
        yield f"{path}: {ours} is {shape.type_name}"
    elif ours == "text":
        found = {"min": theirs.get("min", 0), "max": theirs.get("max"), "pattern": theirs.get("pattern")}
        if found != rule or "enum" in theirs:
            yield f"{path}: {rule} is {found}"
    elif ours == "choice" and rule != shape.enum:
        yield f"{path}: {rule} is {shape.enum}"
    elif ours == "count" and rule != {"min": theirs["min"], "max": theirs["max"]}:
        yield f"{path}: {rule} is {theirs}"
    elif ours == "list":
        if rule["max"] != theirs.get("max") or theirs.get("min", 0) != 0:
            yield f"{path}: {rule['max']} is {theirs}"
        yield from differences(rule["of"], shape.member, path + "[]")
    elif ours == "structure":
        yield from members(rule, shape, path)


def members(ours, shape, path):
    names = [member["name"] for member in ours]
    if sorted(names) != sorted(shape.members):
        yield f"{path}: {names} is {list(shape.members)}"
        return
    for member in ours:
        name = member["name"]
        if member["required"] != (name in shape.required_members):
            yield f"{path}.{name}: required differs"
        yield from differences(member["kind"], shape.members[name], f"{path}.{name}")


model = botocore.session.get_session().get_service_model("personalize")
found = []
for operation in json.load(sys.stdin):
    theirs = model.operation_model(operation["name"])
    found += members(operation["input"], theirs.input_shape, operation["name"])
    errors = sorted(shape.name for shape in theirs.error_shapes)
    if errors != sorted(operation["errors"]):
        found.append(f"{operation['name']}: errors {operation['errors']} is {errors}")
print("\n".join(found))
sys.exit(bool(found))
