"""Shared by the scripts: a boto3 client that validates every response against the service model, and helpers.

Usage of each script: SCRIPT.py ENDPOINT
"""

import json
import re
import sys
import time
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

ENDPOINT = sys.argv[1]
ACCOUNT = "111122223333"
DATASET = f"arn:aws:personalize:eu-west-1:{ACCOUNT}:dataset/shop/INTERACTIONS"
GROUP = DATASET.replace("dataset/shop/INTERACTIONS", "dataset-group/shop")
OTHER_DATASET = DATASET.replace(ACCOUNT, "444455556666")
ROLE = f"arn:aws:iam::{ACCOUNT}:role/import"
FORBIDDEN_ROLE = f"arn:aws:iam::{ACCOUNT}:role/refused"

ACCESS_DENIED = "Failed to create a data import job for Interactions dataset....Insufficient privileges for accessing data in Amazon S3."
TOO_LONG = "Length cannot be more than 256 characters for USER_ID. If no values exceed the character limit, make sure your data follows the formatting guidelines listed in https://docs.aws.amazon.com/personalize/latest/dg/data-prep-formatting.html."
# Data locations of imports that fail, and their complete failureReason.
FAILURES = {
    "missing": ("s3://bucket/missing.csv", ACCESS_DENIED),
    "locked": ("s3://secret/interactions.csv", ACCESS_DENIED),
    "no-slash": ("s3://bucket/folder", ACCESS_DENIED),
    "no-item": ("s3://bucket/no-item.csv", "Failed to create a data import job Interactions dataset...Input CSV is missing the following columns:[ITEM_ID]."),
    "few": ("s3://bucket/few.csv", "Failed to create a data import job for Interactions dataset. The number of interaction records is 999. The minimum number of interaction records required is 1000."),
    "milliseconds": ("s3://bucket/milliseconds.csv", "Column TIMESTAMP has a value in line 2 that is not in Unix epoch seconds."),
    "words": ("s3://bucket/words.csv", "Column TIMESTAMP has a value in line 2 that is not of type long."),
    "null": ("s3://bucket/null.csv", "Column ITEM_ID has a null value in line 2."),
    "long": ("s3://bucket/long.csv", TOO_LONG),
    "latin": ("s3://bucket/latin.csv", "Input csv latin.csv is not encoded in UTF-8 in line 2."),
    "quoted": ("s3://bucket/quoted.csv", "Input csv quoted.csv has column headers that are enclosed in quotation marks."),
    "lines": ("s3://bucket/lines.csv", "Input csv lines.csv has a record in line 2 that is not on a single line."),
    "mixed": ("s3://bucket/mixed/", "Input csv b.csv has other column headers than the files before it."),
    "elsewhere": ("https://elsewhere/data.csv", "Invalid Data location."),
}
BUCKET_DENIED = "Insufficient privileges for accessing data in S3. Please look at https://docs.aws.amazon.com/personalize/latest/dg/granting-personalize-s3-access.html#attach-bucket-policy and fix bucket policy on locked."

# Errors that every operation may return, in addition to those that the model declares for it.
COMMON_ERRORS = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InternalServerException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "RequestEntityTooLargeException",
    "SerializationException",
    "ThrottlingException",
    "UnknownOperationException",
    "UnrecognizedClientException",
    "ValidationException",
}


def job_arn(name):
    return f"arn:aws:personalize:eu-west-1:{ACCOUNT}:dataset-import-job/{name}"


def job(name, **changes):
    """The arguments of create_dataset_import_job."""
    source = {"dataLocation": "s3://bucket/interactions.csv"}
    return {"jobName": name, "datasetArn": DATASET, "dataSource": source, "roleArn": ROLE} | changes


def deletion_arn(name):
    return f"arn:aws:personalize:eu-west-1:{ACCOUNT}:data-deletion-job/{name}"


def deletion(name, **changes):
    """The arguments of create_data_deletion_job."""
    source = {"dataLocation": "s3://bucket/users.csv"}
    return {"jobName": name, "datasetGroupArn": GROUP, "dataSource": source, "roleArn": ROLE} | changes


def control(method, path, body=None):
    """Sends a request to /_local/."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(ENDPOINT + "/_local/" + path, data, {"content-type": "application/json"}, method=method)
    return urllib.request.urlopen(request).read()


def eventually(condition, check):
    """Waits until a condition holds; fails after five minutes."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        value = check()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("timed out waiting until " + condition)


def client(key="AKIALOCAL", secret="local-secret", token=None, region="eu-west-1", **config):
    config = {"retries": {"total_max_attempts": 1}, "parameter_validation": False} | config
    boto = boto3.client(
        "personalize",
        region_name=region,
        endpoint_url=ENDPOINT,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(**config),
    )
    boto.meta.events.register("after-call.personalize.*", validate_response)
    return boto


def validate_response(http_response, parsed, model, **_):
    """Compares the raw body with what botocore parsed, and both with the service model."""
    headers = http_response.headers
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", headers["x-amzn-RequestId"]), headers
    assert headers["Content-Type"] == "application/x-amz-json-1.1", headers
    raw = json.loads(http_response.content)
    if http_response.status_code != 200:
        assert set(raw) <= {"__type", "message"}, raw
        code = parsed["Error"]["Code"]
        assert raw["__type"] == code and raw.get("message", "") == parsed["Error"]["Message"], (raw, parsed)
        declared = {shape.name for shape in model.error_shapes}
        assert code in declared | COMMON_ERRORS, f"{code} is not an error of {model.name}"
        return
    values = {name: value for name, value in parsed.items() if name != "ResponseMetadata"}
    compare(model.output_shape, raw, values, model.name)
    report = ParamValidator().validate(values, model.output_shape)
    assert not report.has_errors(), report.generate_report()


def compare(shape, raw, parsed, path):
    """botocore parsed exactly what was sent, and every value satisfies the constraints of the model."""
    rules = shape.metadata
    if shape.type_name == "structure":
        assert set(raw) == set(parsed) <= set(shape.members), f"{path}: sent {set(raw)}, parsed {set(parsed)}"
        for name, inner in raw.items():
            compare(shape.members[name], inner, parsed[name], f"{path}.{name}")
    elif shape.type_name == "list":
        assert len(raw) == len(parsed) <= rules["max"], path
        for inner, other in zip(raw, parsed):
            compare(shape.member, inner, other, path + "[]")
    elif shape.type_name == "timestamp":
        # The CLI configures botocore to return timestamps unparsed.
        seconds = parsed if isinstance(parsed, float) else parsed.timestamp()
        assert isinstance(raw, float) and abs(seconds - raw) < 1e-6, f"{path}: sent {raw!r}, parsed {parsed}"
        assert abs(raw * 1000 - round(raw * 1000)) < 1e-3, f"{path}: {raw!r} has a higher precision than milliseconds"
    else:
        assert type(raw) is type(parsed) and raw == parsed, f"{path}: sent {raw!r}, parsed {parsed!r}"
    if isinstance(raw, str):
        assert rules.get("min", 0) <= len(raw) <= rules.get("max", len(raw)), f"{path}: {raw!r}"
        assert not shape.enum or raw in shape.enum, f"{path}: {raw!r}"
        # The model uses the pattern of Personalize ARNs for role ARNs, which are IAM ARNs. Python has no \p{...}.
        pattern = None if path.endswith("roleArn") else rules.get("pattern")
        if pattern and r"\p" not in pattern:
            assert re.fullmatch(pattern, raw), f"{path}: {raw!r} does not match {pattern}"


def expect_error(code, message, call, **arguments):
    """The call fails with this code, and with the exception class that boto3 generates for it."""
    try:
        response = call(**arguments)
    except ClientError as error:
        actual = error.response["Error"]
        assert actual["Code"] == code, f"{actual} instead of {code}"
        assert message in actual["Message"], f"{message!r} is not in {actual['Message']!r}"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        declared = getattr(call.__self__.exceptions, code, None) if code not in COMMON_ERRORS else None
        assert declared is None or isinstance(error, declared), type(error)
        return
    raise AssertionError(f"expected {code}, got {response}")


def wait_until_finished(personalize, name):
    """Waits until a job has finished, and returns it."""

    def finished_job():
        job = personalize.describe_dataset_import_job(datasetImportJobArn=job_arn(name))["datasetImportJob"]
        return job if job["status"] in ("ACTIVE", "CREATE FAILED") else None

    return eventually(f"{name} has finished", finished_job)
