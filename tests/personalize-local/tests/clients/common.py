"""What the scripts share: a boto3 client whose every answer botocore judges, and errors as the model declares them.

usage of each script: SCRIPT.py ENDPOINT
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
FOREIGN = DATASET.replace(ACCOUNT, "444455556666")
ROLE = f"arn:aws:iam::{ACCOUNT}:role/import"
REFUSED_ROLE = f"arn:aws:iam::{ACCOUNT}:role/refused"

UNREADABLE = "Failed to create a data import job for Interactions dataset....Insufficient privileges for accessing data in Amazon S3."
TOO_LONG = "Length cannot be more than 256 characters for USER_ID. If no values exceed the character limit, make sure your data follows the formatting guidelines listed in https://docs.aws.amazon.com/personalize/latest/dg/data-prep-formatting.html."
# Where data lies that is not taken over, and the whole failureReason.
FAILURES = {
    "missing": ("s3://bucket/missing.csv", UNREADABLE),
    "locked": ("s3://secret/interactions.csv", UNREADABLE),
    "no-slash": ("s3://bucket/folder", UNREADABLE),
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
LOCKED = "Insufficient privileges for accessing data in S3. Please look at https://docs.aws.amazon.com/personalize/latest/dg/granting-personalize-s3-access.html#attach-bucket-policy and fix bucket policy on locked."

# What any operation may answer besides the errors that the model declares for it.
COMMON = {
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


def job(name, **more):
    source = {"dataLocation": "s3://bucket/interactions.csv"}
    return {"jobName": name, "datasetArn": DATASET, "dataSource": source, "roleArn": ROLE} | more


def control(method, path, body=None):
    """Asks the stand-in's own interface."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(ENDPOINT + "/_local/" + path, data, {"content-type": "application/json"}, method=method)
    return urllib.request.urlopen(request).read()


def eventually(what, look):
    """Waits for a condition with a generous limit."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("gave up waiting: " + what)


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
    boto.meta.events.register("after-call.personalize.*", judge)
    return boto


def judge(http_response, parsed, model, **_):
    """Judges an answer: the raw body against botocore's parse of it, and both against the service model."""
    headers = http_response.headers
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", headers["x-amzn-RequestId"]), headers
    assert headers["Content-Type"] == "application/x-amz-json-1.1", headers
    raw = json.loads(http_response.content)
    if http_response.status_code != 200:
        assert set(raw) <= {"__type", "message"}, raw
        code = parsed["Error"]["Code"]
        assert raw["__type"] == code and raw.get("message", "") == parsed["Error"]["Message"], (raw, parsed)
        declared = {shape.name for shape in model.error_shapes}
        assert code in declared | COMMON, f"{code} is no error of {model.name}"
        return
    values = {name: value for name, value in parsed.items() if name != "ResponseMetadata"}
    same(model.output_shape, raw, values, model.name)
    report = ParamValidator().validate(values, model.output_shape)
    assert not report.has_errors(), report.generate_report()


def same(shape, raw, parsed, path):
    """botocore's parse has all that was sent and nothing else, and each value keeps to the model's limits."""
    rules = shape.metadata
    if shape.type_name == "structure":
        assert set(raw) == set(parsed) <= set(shape.members), f"{path}: {set(raw)} was sent, {set(parsed)} came"
        for name, inner in raw.items():
            same(shape.members[name], inner, parsed[name], f"{path}.{name}")
    elif shape.type_name == "list":
        assert len(raw) == len(parsed) <= rules["max"], path
        for inner, other in zip(raw, parsed):
            same(shape.member, inner, other, path + "[]")
    elif shape.type_name == "timestamp":
        # The CLI asks botocore to leave times as they came.
        seconds = parsed if isinstance(parsed, float) else parsed.timestamp()
        assert isinstance(raw, float) and abs(seconds - raw) < 1e-6, f"{path}: {raw!r} became {parsed}"
        assert abs(raw * 1000 - round(raw * 1000)) < 1e-3, f"{path}: {raw!r} is finer than milliseconds"
    else:
        assert type(raw) is type(parsed) and raw == parsed, f"{path}: {raw!r} became {parsed!r}"
    if isinstance(raw, str):
        assert rules.get("min", 0) <= len(raw) <= rules.get("max", len(raw)), f"{path}: {raw!r}"
        assert not shape.enum or raw in shape.enum, f"{path}: {raw!r}"
        # The model gives a role's ARN the pattern of the service's own ARNs, and Python has no \p{...}.
        pattern = None if path.endswith("roleArn") else rules.get("pattern")
        if pattern and r"\p" not in pattern:
            assert re.fullmatch(pattern, raw), f"{path}: {raw!r} is not {pattern}"


def refused(code, message, call, **arguments):
    """The call is refused with this code, as the exception class that boto3 made for it."""
    try:
        answer = call(**arguments)
    except ClientError as error:
        found = error.response["Error"]
        assert found["Code"] == code, f"{found} instead of {code}"
        assert message in found["Message"], f"{found['Message']!r} lacks {message!r}"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        declared = getattr(call.__self__.exceptions, code, None) if code not in COMMON else None
        assert declared is None or isinstance(error, declared), type(error)
        return
    raise AssertionError(f"{code} expected, got {answer}")


def finished(personalize, name):
    """The job, when it has ended."""

    def ended():
        found = personalize.describe_dataset_import_job(datasetImportJobArn=job_arn(name))["datasetImportJob"]
        return found if found["status"] in ("ACTIVE", "CREATE FAILED") else None

    return eventually(f"{name} ends", ended)
