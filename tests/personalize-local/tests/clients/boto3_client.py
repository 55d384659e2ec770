"""Calls every operation with boto3 and provokes the service's errors. botocore parses and judges each answer.

usage: boto3_client.py ENDPOINT
"""

import json
import sys
import time
import urllib.request
from datetime import datetime, timedelta, timezone

import boto3
from botocore.auth import SigV4Auth
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

ENDPOINT = sys.argv[1]
DATASET = "arn:aws:personalize:eu-west-1:111122223333:dataset/shop/INTERACTIONS"
FOREIGN = "arn:aws:personalize:eu-west-1:444455556666:dataset/shop/INTERACTIONS"
ROLE = "arn:aws:iam::111122223333:role/import"
REFUSED_ROLE = "arn:aws:iam::111122223333:role/refused"


def client(key="AKIALOCAL", secret="local-secret", token=None, region="eu-west-1", name="personalize"):
    return boto3.client(
        name,
        region_name=region,
        endpoint_url=ENDPOINT,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )


def complete(shape, value, path):
    """No member that the model lacks: botocore's parser drops those silently, so the raw body is compared."""
    if shape.type_name == "structure":
        for name, inner in value.items():
            assert name in shape.members, f"{path}.{name} is not in the model"
            complete(shape.members[name], inner, f"{path}.{name}")
    elif shape.type_name == "list":
        for inner in value:
            complete(shape.member, inner, path)
    elif shape.type_name == "timestamp":
        assert isinstance(value, float), f"{path} is {value!r}, not a float"


def judged(boto):
    """Every good answer is checked against the output shape, raw and parsed."""

    def after(http_response, parsed, model, **_):
        if http_response.status_code == 200 and model.output_shape is not None:
            complete(model.output_shape, json.loads(http_response.content), model.name)
            values = {k: v for k, v in parsed.items() if k != "ResponseMetadata"}
            report = ParamValidator().validate(values, model.output_shape)
            assert not report.has_errors(), report.generate_report()
        assert http_response.headers["x-amzn-RequestId"]

    boto.meta.events.register("after-call.personalize.*", after)
    return boto


def refused(code, message, call, **arguments):
    try:
        answer = call(**arguments)
    except ClientError as error:
        found = error.response["Error"]
        assert found["Code"] == code, f"{found} instead of {code}"
        assert message in found["Message"], f"{found['Message']!r} lacks {message!r}"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        return
    raise AssertionError(f"{code} expected, got {answer}")


def job(name, **more):
    source = {"dataLocation": "s3://bucket/interactions.csv"}
    return {"jobName": name, "datasetArn": DATASET, "dataSource": source, "roleArn": ROLE} | more


def control(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(ENDPOINT + "/_local/" + path, data, {"content-type": "application/json"}, method=method)
    return urllib.request.urlopen(request).read()


def finished(personalize, arn):
    for _ in range(200):
        found = personalize.describe_dataset_import_job(datasetImportJobArn=arn)["datasetImportJob"]
        if found["status"] in ("ACTIVE", "CREATE FAILED"):
            return found
        time.sleep(0.05)
    raise AssertionError("the job did not end")


def imports(p):
    arn = p.create_dataset_import_job(**job("first", tags=[{"tagKey": "a", "tagValue": "b"}]))["datasetImportJobArn"]
    found = finished(p, arn)
    assert found["status"] == "ACTIVE", found
    assert (found["datasetArn"], found["roleArn"], found["importMode"]) == (DATASET, ROLE, "FULL")
    assert p.list_tags_for_resource(resourceArn=arn)["tags"] == [{"tagKey": "a", "tagValue": "b"}]
    p.tag_resource(resourceArn=arn, tags=[{"tagKey": "c", "tagValue": ""}])
    p.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert p.list_tags_for_resource(resourceArn=arn)["tags"] == [{"tagKey": "c", "tagValue": ""}]
    p.create_dataset_import_job(**job("second", importMode="INCREMENTAL"))
    refused("ResourceAlreadyExistsException", "already exists", p.create_dataset_import_job, **job("first"))
    for location, reason in {
        "s3://bucket/missing.csv": "Insufficient privileges for accessing data in S3",
        "s3://secret/interactions.csv": "fix bucket policy on secret",
        "s3://bucket/no-item.csv": "Input csv is missing the following columns: [ITEM_ID]",
        "s3://bucket/few.csv": "number of interaction records",
        "https://elsewhere/data.csv": "Invalid Data location.",
    }.items():
        name = "fails-" + str(abs(hash(location)))
        arn = p.create_dataset_import_job(**job(name, dataSource={"dataLocation": location}))["datasetImportJobArn"]
        found = finished(p, arn)
        assert found["status"] == "CREATE FAILED" and reason in found["failureReason"], found
        refused("ResourceAlreadyExistsException", "", p.create_dataset_import_job, **job(name))
    arn = p.create_dataset_import_job(**job("folder", dataSource={"dataLocation": "s3://bucket/folder/"}))
    assert finished(p, arn["datasetImportJobArn"])["status"] == "ACTIVE"


def reads(p):
    dataset = p.describe_dataset(datasetArn=DATASET)["dataset"]
    assert dataset["datasetType"] == "Interactions" and dataset["status"] == "ACTIVE"
    schema = p.describe_schema(schemaArn=dataset["schemaArn"])["schema"]
    assert json.loads(schema["schema"])["type"] == "record"
    assert DATASET in [d["datasetArn"] for page in p.get_paginator("list_datasets").paginate() for d in page["datasets"]]
    pages = p.get_paginator("list_schemas").paginate(PaginationConfig={"PageSize": 1})
    assert dataset["schemaArn"] in [s["schemaArn"] for page in pages for s in page["schemas"]]
    pages = p.get_paginator("list_dataset_import_jobs").paginate(datasetArn=DATASET, PaginationConfig={"PageSize": 2})
    names = [j["jobName"] for page in pages for j in page["datasetImportJobs"]]
    assert len(names) == len(set(names)) > 6, names


def errors(p):
    create = p.create_dataset_import_job
    refused("ValidationException", "1 validation error detected: Value '-' at 'jobName' failed", create, **job("-"))
    refused("ValidationException", "2 validation errors", create, **job("x" * 64 + "!"))
    refused("ValidationException", "Value null at 'datasetArn'", create, jobName="a", dataSource={})
    refused("ValidationException", "enum value set: [FULL, INCREMENTAL]", create, **job("a", importMode="HALF"))
    refused("InvalidInputException", "Invalid Data location.", create, **job("a", dataSource={}))
    refused("AccessDeniedException", "iam:PassRole on resource: " + REFUSED_ROLE, create, **job("a", roleArn=REFUSED_ROLE))
    refused("ResourceNotFoundException", "", create, **job("a", datasetArn=DATASET + "X"))
    refused("InvalidInputException", "needs an earlier", create, **job("a", datasetArn=DATASET.replace("INTER", "INTER2"), importMode="INCREMENTAL"))
    refused("AccessDeniedException", "not authorized", create, **job("a", datasetArn=FOREIGN))
    many = [{"tagKey": str(n), "tagValue": ""} for n in range(51)]
    refused("TooManyTagsException", "", create, **job("a", tags=many))
    refused("InvalidInputException", "reserved", create, **job("a", tags=[{"tagKey": "aws:x", "tagValue": ""}]))
    refused("InvalidInputException", "Duplicate", create, **job("a", tags=many[:1] * 2))
    refused("ResourceNotFoundException", "", p.tag_resource, resourceArn=DATASET + "X", tags=[])
    refused("TooManyTagKeysException", "", p.untag_resource, resourceArn=DATASET, tagKeys=[str(n) for n in range(51)])
    refused("TooManyTagsException", "", p.tag_resource, resourceArn=DATASET, tags=many)
    refused("ResourceNotFoundException", "", p.list_tags_for_resource, resourceArn=DATASET + "X")
    refused("ResourceNotFoundException", "", p.describe_dataset, datasetArn=DATASET + "X")
    refused("ResourceNotFoundException", "", p.describe_schema, schemaArn=DATASET.replace("dataset/shop/", "schema/"))
    refused("InvalidInputException", "", p.describe_dataset_import_job, datasetImportJobArn=DATASET)
    gone = DATASET.replace("dataset/shop", "dataset-import-job")
    refused("ResourceNotFoundException", gone, p.describe_dataset_import_job, datasetImportJobArn=gone)
    for call in (p.list_dataset_import_jobs, p.list_datasets, p.list_schemas):
        refused("InvalidNextTokenException", "", call, nextToken="made-up")
        refused("ValidationException", "less than or equal to 100", call, maxResults=101)
    refused("UnknownOperationException", "", p.list_solutions)
    control("POST", "datasets/status", {"arn": DATASET, "status": "CREATE PENDING"})
    refused("ResourceInUseException", "CREATE PENDING", create, **job("a"))
    control("POST", "datasets/status", {"arn": DATASET, "status": "ACTIVE"})


def quota(p):
    finished(p, DATASET.replace("dataset/shop/INTERACTIONS", "dataset-import-job/second"))
    control("POST", "holds", {"name": "held-"})
    for number in range(5):
        p.create_dataset_import_job(**job(f"held-{number}"))
    message = "More than 5 resources with PENDING or IN_PROGRESS status."
    refused("LimitExceededException", message, p.create_dataset_import_job, **job("held-6"))
    control("DELETE", "holds", {"name": "held-"})
    control("POST", "jobs/finish", {"job": "held-0", "outcome": "active"})
    p.create_dataset_import_job(**job("held-7"))


def signatures():
    lists = lambda **arguments: client(**arguments).list_datasets
    refused("UnrecognizedClientException", "security token included", lists(key="AKIAOTHER"))
    refused("InvalidSignatureException", "signature we calculated does not match", lists(secret="wrong"))
    refused("UnrecognizedClientException", "", lists(token="uncalled-for"))
    refused("UnrecognizedClientException", "", lists(key="ASIALOCAL", secret="temporary"))
    refused("ExpiredTokenException", "expired", lists(key="ASIAEXPIRED", secret="temporary", token="old"))
    client(key="ASIALOCAL", secret="temporary", token="session").list_datasets()
    unsigned = client()
    unsigned.meta.events.register("before-send.personalize.*", lambda request, **_: request.headers.pop("Authorization") and None)
    refused("MissingAuthenticationTokenException", "", unsigned.list_datasets)
    modify = SigV4Auth._modify_request_before_signing
    for hours, words in ((-1, "Signature expired"), (1, "Signature not yet current")):
        def skewed(self, request, hours=hours):
            late = datetime.now(timezone.utc) + timedelta(hours=hours)
            request.context["timestamp"] = late.strftime("%Y%m%dT%H%M%SZ")
            modify(self, request)
        SigV4Auth._modify_request_before_signing = skewed
        try:
            refused("InvalidSignatureException", words, client().list_datasets)
        finally:
            SigV4Auth._modify_request_before_signing = modify
    # Another region is another place: nothing is there.
    assert client(region="us-east-1").list_datasets()["datasets"] == []


def retries():
    """The client's own retries ride out a throttled request and an internal error."""
    control("POST", "faults", {"operation": "ListSchemas", "action": {"error": {"code": "ThrottlingException"}}})
    control("POST", "faults", {"operation": "ListSchemas", "action": {"error": {"code": "InternalServerException", "status": 500}}})
    patient = boto3.client("personalize", region_name="eu-west-1", endpoint_url=ENDPOINT, aws_access_key_id="AKIALOCAL",
                           aws_secret_access_key="local-secret", config=Config(retries={"mode": "standard", "max_attempts": 4}))
    assert patient.list_schemas()["ResponseMetadata"]["RetryAttempts"] == 2
    assert json.loads(control("GET", "faults")) == []


if __name__ == "__main__":
    personalize = judged(client())
    imports(personalize)
    reads(personalize)
    errors(personalize)
    quota(personalize)
    signatures()
    retries()
    print("boto3: every operation and error as expected")
