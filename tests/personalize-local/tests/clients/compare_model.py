"""Compares tables of operations (a JSON list on standard input) with the service model in botocore.

Prints the differences of each table, as a list of lists.
"""

import json
import sys

import botocore.session

TYPES = {"anyString": "string", "anyInteger": "integer", "boolean": "boolean", "timestamp": "timestamp"}


def parse(shape):
    """Converts a shape of the table to the type, constraints and members of the model."""
    if isinstance(shape, str):
        return TYPES[shape], {}, None
    ((name, rule),) = shape.items()
    if name == "string":
        return "string", {"max": rule["max"]} | ({"min": rule["min"]} if rule["min"] else {}) | ({"pattern": rule["pattern"]} if rule["pattern"] else {}) | ({"sensitive": True} if rule["sensitive"] else {}), None
    if name == "enum":
        return "string", {"enum": rule}, None
    if name == "integer":
        return "integer", rule, None
    if name == "list":
        return "list", {"max": rule["max"]}, rule["member"]
    return "structure", {}, rule


def shape_differences(ours, shape, path):
    name, constraints, inner = parse(ours)
    # Required members are compared below, and a minimum of 0 is no constraint.
    expected = {k: v for k, v in shape.metadata.items() if k != "required" and (k, v) != ("min", 0)}
    if name != shape.type_name:
        yield f"{path}: {name} instead of {shape.type_name}"
    elif constraints != expected:
        yield f"{path}: {constraints} instead of {expected}"
    elif name == "list":
        yield from shape_differences(inner, shape.member, path + "[]")
    elif name == "structure":
        yield from member_differences(inner, shape, path)


def member_differences(ours, shape, path):
    names = [member["name"] for member in ours]
    if sorted(names) != sorted(shape.members):
        yield f"{path}: members {sorted(names)} instead of {sorted(shape.members)}"
        return
    required = sorted(member["name"] for member in ours if member["required"])
    if required != sorted(shape.required_members):
        yield f"{path}: required {required} instead of {sorted(shape.required_members)}"
    for member in ours:
        yield from shape_differences(member["shape"], shape.members[member["name"]], f"{path}.{member['name']}")


def table_differences(operations):
    protocol = {"protocol": "json", "jsonVersion": "1.1", "targetPrefix": "AmazonPersonalize", "signingName": "personalize", "signatureVersion": "v4"}
    yield from (f"{name}: {value} instead of {model.metadata[name]}" for name, value in protocol.items() if model.metadata[name] != value)
    if len(operations) != 13:
        yield f"{len(operations)} operations"
    for operation in operations:
        name = operation["name"]
        expected = model.operation_model(name)
        yield from member_differences(operation["input"], expected.input_shape, name)
        yield from member_differences(operation["output"], expected.output_shape, f"{name} response")
        errors = {shape.name: sorted(shape.members) for shape in expected.error_shapes}
        if errors != {error: ["message"] for error in operation["errors"]}:
            yield f"{name}: errors {operation['errors']} instead of {errors}"
        if (expected.http["method"], expected.http["requestUri"]) != ("POST", "/"):
            yield f"{name}: POST / instead of {expected.http}"


model = botocore.session.get_session().get_service_model("personalize")
json.dump([list(table_differences(operations)) for operations in json.load(sys.stdin)], sys.stdout)
