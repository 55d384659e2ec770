"""Compares tables of operations (a JSON list on standard input) with botocore's service model, both ways.

Prints what each table has wrong, a list of lists.
"""

import json
import sys

import botocore.session

TYPES = {"text": "string", "words": "string", "choice": "string", "flag": "boolean", "time": "timestamp", "count": "integer", "structure": "structure", "list": "list"}


def rules(kind):
    """A kind of the table in the words of a model's metadata."""
    if isinstance(kind, str):
        return TYPES[kind], {}, None
    ((name, rule),) = kind.items()
    if name == "text":
        return "string", {"max": rule["max"]} | ({"min": rule["min"]} if rule["min"] else {}) | ({"pattern": rule["pattern"]} if rule["pattern"] else {}) | ({"sensitive": True} if rule["sensitive"] else {}), None
    if name == "choice":
        return "string", {"enum": rule}, None
    if name == "count":
        return "integer", rule, None
    if name == "list":
        return "list", {"max": rule["max"]}, rule["of"]
    return "structure", {}, rule


def differences(kind, shape, path):
    name, ours, inner = rules(kind)
    # Not rules for a client: which members are required (compared below), a least of nothing.
    theirs = {k: v for k, v in shape.metadata.items() if k != "required" and (k, v) != ("min", 0)}
    if name != shape.type_name:
        yield f"{path}: {name} is {shape.type_name}"
    elif ours != theirs:
        yield f"{path}: {ours} is {theirs}"
    elif name == "list":
        yield from differences(inner, shape.member, path + "[]")
    elif name == "structure":
        yield from members(inner, shape, path)


def members(ours, shape, path):
    names = [member["name"] for member in ours]
    if sorted(names) != sorted(shape.members):
        yield f"{path}: members {sorted(names)} is {sorted(shape.members)}"
        return
    required = sorted(member["name"] for member in ours if member["required"])
    if required != sorted(shape.required_members):
        yield f"{path}: required {required} is {sorted(shape.required_members)}"
    for member in ours:
        yield from differences(member["kind"], shape.members[member["name"]], f"{path}.{member['name']}")


def table(operations):
    """What a whole table has wrong."""
    wire = {"protocol": "json", "jsonVersion": "1.1", "targetPrefix": "AmazonPersonalize", "signingName": "personalize", "signatureVersion": "v4"}
    yield from (f"{name}: {value} is {model.metadata[name]}" for name, value in wire.items() if model.metadata[name] != value)
    if len(operations) != 10:
        yield f"{len(operations)} operations"
    for operation in operations:
        name = operation["name"]
        theirs = model.operation_model(name)
        yield from members(operation["input"], theirs.input_shape, name)
        yield from members(operation["output"], theirs.output_shape, f"{name} answer")
        errors = {shape.name: sorted(shape.members) for shape in theirs.error_shapes}
        if errors != {error: ["message"] for error in operation["errors"]}:
            yield f"{name}: errors {operation['errors']} is {errors}"
        if (theirs.http["method"], theirs.http["requestUri"]) != ("POST", "/"):
            yield f"{name}: POST / is {theirs.http}"


model = botocore.session.get_session().get_service_model("personalize")
json.dump([list(table(operations)) for operations in json.load(sys.stdin)], sys.stdout)
