"""boto3 calls every operation and provokes every error that botocore's service model declares."""

import json
from datetime import datetime, timedelta, timezone

from botocore.auth import SigV4Auth
from botocore.waiter import WaiterModel, create_waiter_with_client

from common import ACCOUNT, DATASET, FAILURES, FOREIGN, LOCKED, REFUSED_ROLE, ROLE, client, control, eventually, finished, job, job_arn, refused

MANY = [{"tagKey": str(n), "tagValue": ""} for n in range(51)]


def imports(p):
    arn = p.create_dataset_import_job(**job("first", publishAttributionMetricsToS3=True, tags=[{"tagKey": "a", "tagValue": "b"}]))["datasetImportJobArn"]
    assert arn == job_arn("first")
    found = waiter(p, "first")
    expected = {"datasetArn": DATASET, "roleArn": ROLE, "importMode": "FULL", "publishAttributionMetricsToS3": True}
    assert expected.items() <= found.items(), found
    assert found["dataSource"] == {"dataLocation": "s3://bucket/interactions.csv"}
    assert abs(datetime.now(timezone.utc) - found["creationDateTime"]) < timedelta(minutes=5)
    assert found["creationDateTime"] < found["lastUpdatedDateTime"]
    # What the client made of the answer is what the stand-in holds.
    (held,) = [held for held in json.loads(control("GET", "jobs")) if held["name"] == "first"]
    assert (held["createdMs"], held["updatedMs"]) == tuple(round(found[m].timestamp() * 1000) for m in ("creationDateTime", "lastUpdatedDateTime"))
    assert (held["status"], held["dataLocation"], held["roleArn"]) == (found["status"], found["dataSource"]["dataLocation"], found["roleArn"])
    p.create_dataset_import_job(**job("second", importMode="INCREMENTAL"))
    assert finished(p, "second")["importMode"] == "INCREMENTAL"
    # roleArn is optional in the model, and so absent from the answer.
    p.create_dataset_import_job(**{k: v for k, v in job("no-role").items() if k != "roleArn"})
    assert "roleArn" not in finished(p, "no-role")


def waiter(p, name):
    """The service has no waiters in botocore's data, so botocore's own waiter is given the rules of this one."""
    assert p.waiter_names == []
    status = {"matcher": "path", "argument": "datasetImportJob.status"}
    rules = {"operation": "DescribeDatasetImportJob", "delay": 0.05, "maxAttempts": 1200}
    rules["acceptors"] = [status | {"expected": "ACTIVE", "state": "success"}, status | {"expected": "CREATE FAILED", "state": "failure"}]
    model = WaiterModel({"version": 2, "waiters": {"ImportEnded": rules}})
    create_waiter_with_client("ImportEnded", model, p).wait(datasetImportJobArn=job_arn(name))
    return p.describe_dataset_import_job(datasetImportJobArn=job_arn(name))["datasetImportJob"]


def failures(p):
    for name, (location, reason) in FAILURES.items():
        p.create_dataset_import_job(**job(name, dataSource={"dataLocation": location}))
        found = finished(p, name)
        assert (found["status"], found["failureReason"]) == ("CREATE FAILED", reason), found
        # A failed job keeps its name.
        refused("ResourceAlreadyExistsException", f"Another resource with Arn {job_arn(name)} already exists.", p.create_dataset_import_job, **job(name))
    p.create_dataset_import_job(**job("huge", importMode="INCREMENTAL", dataSource={"dataLocation": "s3://bucket/huge.csv"}))
    assert finished(p, "huge")["failureReason"].endswith("The maximum size is 1 GB.")
    p.create_dataset_import_job(**job("folder", dataSource={"dataLocation": "s3://bucket/folder/"}))
    assert finished(p, "folder")["status"] == "ACTIVE"


def reads(p):
    dataset = p.describe_dataset(datasetArn=DATASET)["dataset"]
    assert (dataset["datasetType"], dataset["status"], dataset["name"]) == ("Interactions", "ACTIVE", "shop-interactions")
    assert dataset["datasetGroupArn"] == DATASET.replace("dataset/shop/INTERACTIONS", "dataset-group/shop")
    schema = p.describe_schema(schemaArn=dataset["schemaArn"])["schema"]
    assert [field["name"] for field in json.loads(schema["schema"])["fields"]] == ["USER_ID", "ITEM_ID", "TIMESTAMP"]
    found = [d["datasetArn"] for d in paged(p, "list_datasets", "datasets", datasetGroupArn=dataset["datasetGroupArn"])]
    assert DATASET in found and FOREIGN not in found, found
    assert p.list_datasets(datasetGroupArn=dataset["datasetGroupArn"] + "s")["datasets"] == []
    assert dataset["schemaArn"] in [s["schemaArn"] for s in paged(p, "list_schemas", "schemas")]
    jobs = [j["jobName"] for j in paged(p, "list_dataset_import_jobs", "datasetImportJobs", datasetArn=DATASET)]
    assert len(jobs) == len(set(jobs)) > 6, jobs
    assert p.list_dataset_import_jobs(datasetArn=DATASET.replace("INTER", "INTER2"))["datasetImportJobs"] == []


def paged(p, operation, member, **arguments):
    """All items through boto3's own paginator, a page of two at a time, the same as in one page."""
    pages = list(p.get_paginator(operation).paginate(PaginationConfig={"PageSize": 2}, **arguments))
    assert all(len(page[member]) == 2 for page in pages[:-1]) and "nextToken" not in pages[-1]
    items = [item for page in pages for item in page[member]]
    assert items == getattr(p, operation)(**arguments)[member]
    return items


def creating(p):
    create = p.create_dataset_import_job
    refused("ValidationException", "1 validation error detected: Value '-' at 'jobName' failed", create, **job("-"))
    refused("ValidationException", "2 validation errors", create, **job("x" * 64 + "!"))
    refused("ValidationException", "Value null at 'datasetArn'", create, jobName="a", dataSource={})
    refused("ValidationException", "enum value set: [FULL, INCREMENTAL]", create, **job("a", importMode="HALF"))
    refused("ValidationException", "at 'tags.1.member.tagKey'", create, **job("a", tags=[{"tagKey": "", "tagValue": ""}]))
    refused("SerializationException", "NUMBER_VALUE can not be converted to a String", create, **job(7))
    refused("SerializationException", "STRING_VALUE can not be converted to a Boolean", create, **job("a", publishAttributionMetricsToS3="yes"))
    refused("InvalidInputException", "Invalid Data location.", create, **job("a", dataSource={}))
    refused("AccessDeniedException", "iam:PassRole on resource: " + REFUSED_ROLE, create, **job("a", roleArn=REFUSED_ROLE))
    refused("AccessDeniedException", "Cross-account pass role is not allowed.", create, **job("a", roleArn=ROLE.replace(ACCOUNT, "444455556666")))
    refused("InvalidInputException", LOCKED, create, **job("a", dataSource={"dataLocation": "s3://locked/interactions.csv"}))
    refused("ResourceNotFoundException", "", create, **job("a", datasetArn=DATASET + "X"))
    refused("InvalidInputException", "needs an earlier", create, **job("a", datasetArn=DATASET.replace("INTER", "INTER2"), importMode="INCREMENTAL"))
    refused("AccessDeniedException", f"arn:aws:iam::{ACCOUNT}:user/AKIALOCAL is not authorized", create, **job("a", datasetArn=FOREIGN))
    refused("InvalidInputException", "does not match the region", create, **job("a", datasetArn=DATASET.replace("eu-west-1", "us-east-1")))
    refused("TooManyTagsException", "", create, **job("a", tags=MANY))
    refused("InvalidInputException", "reserved", create, **job("a", tags=[{"tagKey": "aws:x", "tagValue": ""}]))
    refused("InvalidInputException", "Duplicate", create, **job("a", tags=MANY[:1] * 2))
    for status in ("CREATE PENDING", "CREATE FAILED", "DELETE IN_PROGRESS"):
        control("POST", "datasets/status", {"arn": DATASET, "status": status})
        refused("ResourceInUseException", status, create, **job("a"))
    control("POST", "datasets/status", {"arn": DATASET, "status": "ACTIVE"})
    # Nothing of all this has made a job.
    refused("ResourceNotFoundException", job_arn("a"), p.describe_dataset_import_job, datasetImportJobArn=job_arn("a"))


def reading(p):
    refused("InvalidInputException", "", p.describe_dataset_import_job, datasetImportJobArn=DATASET)
    refused("InvalidInputException", "", p.describe_dataset, datasetArn=job_arn("first"))
    refused("ResourceNotFoundException", "", p.describe_dataset, datasetArn=DATASET + "X")
    refused("InvalidInputException", "", p.describe_schema, schemaArn=DATASET)
    refused("ResourceNotFoundException", "", p.describe_schema, schemaArn=DATASET.replace("dataset/shop/", "schema/"))
    refused("InvalidInputException", "", p.list_dataset_import_jobs, datasetArn=job_arn("first"))
    refused("InvalidInputException", "", p.list_datasets, datasetGroupArn=DATASET)
    token = p.list_dataset_import_jobs(maxResults=1)["nextToken"]
    for call in (p.list_dataset_import_jobs, p.list_datasets, p.list_schemas):
        refused("InvalidNextTokenException", "", call, nextToken="made-up")
        refused("ValidationException", "less than or equal to 100", call, maxResults=101)
        refused("ValidationException", "greater than or equal to 1", call, maxResults=0)
    # A token is good for its own list only.
    refused("InvalidNextTokenException", "", p.list_datasets, nextToken=token)
    refused("InvalidNextTokenException", "", p.list_dataset_import_jobs, nextToken=token, datasetArn=DATASET)
    refused("UnknownOperationException", "", p.list_solutions)


def tags(p):
    arn = job_arn("first")
    held = lambda: {tag["tagKey"]: tag["tagValue"] for tag in p.list_tags_for_resource(resourceArn=arn)["tags"]}
    assert held() == {"a": "b"}
    p.tag_resource(resourceArn=arn, tags=[{"tagKey": "c", "tagValue": ""}, {"tagKey": "a", "tagValue": "new"}])
    assert held() == {"a": "new", "c": ""}
    p.untag_resource(resourceArn=arn, tagKeys=["a", "never-there"])
    assert held() == {"c": ""}
    # Letters, digits and spaces of any script, also outside the basic plane.
    odd = {"Größe": "日本語 テスト", "ключ\u3000١": "𝒳𠮷"}
    p.tag_resource(resourceArn=arn, tags=[{"tagKey": key, "tagValue": value} for key, value in odd.items()])
    assert held() == {"c": ""} | odd
    p.untag_resource(resourceArn=arn, tagKeys=list(odd))
    refused("ValidationException", "Value at 'tags.1.member.tagValue' failed", p.tag_resource, resourceArn=arn, tags=[{"tagKey": "a", "tagValue": "\N{SNOWMAN}"}])
    # Fifty is the most, over several requests, and replacing one is no more.
    p.tag_resource(resourceArn=arn, tags=MANY[:49])
    p.tag_resource(resourceArn=arn, tags=[{"tagKey": "7", "tagValue": "seven"}])
    refused("TooManyTagsException", "50", p.tag_resource, resourceArn=arn, tags=MANY[50:])
    assert len(held()) == 50 and held()["7"] == "seven"
    p.untag_resource(resourceArn=arn, tagKeys=list(held()))
    assert held() == {}
    refused("TooManyTagsException", "50", p.tag_resource, resourceArn=DATASET, tags=MANY)
    refused("InvalidInputException", "reserved", p.tag_resource, resourceArn=arn, tags=[{"tagKey": "AWS:x", "tagValue": ""}])
    refused("InvalidInputException", "Duplicate", p.tag_resource, resourceArn=arn, tags=MANY[:1] * 2)
    refused("ValidationException", "regular expression", p.tag_resource, resourceArn=arn, tags=[{"tagKey": "a\n", "tagValue": ""}])
    refused("ValidationException", "length less than or equal to 256", p.tag_resource, resourceArn=arn, tags=[{"tagKey": "a", "tagValue": "v" * 257}])
    refused("TooManyTagKeysException", "50", p.untag_resource, resourceArn=DATASET, tagKeys=[str(n) for n in range(51)])
    nowhere = DATASET.replace("eu-west-1", "us-east-1")
    for call, more in ((p.tag_resource, {"tags": []}), (p.untag_resource, {"tagKeys": []}), (p.list_tags_for_resource, {})):
        refused("ResourceNotFoundException", "", call, resourceArn=DATASET + "X", **more)
        refused("InvalidInputException", "region", call, resourceArn=nowhere, **more)
        # When the service says these is not documented: no rule of the stand-in does, a fault can.
        for code in ("ResourceInUseException", "LimitExceededException") if call == p.tag_resource else ("ResourceInUseException",):
            control("POST", "faults", {"name": arn, "action": {"error": {"code": code, "message": "as asked"}}})
            refused(code, "as asked", call, resourceArn=arn, **more)


def quota(p):
    control("POST", "holds", {"name": "held-"})
    for number in range(5):
        p.create_dataset_import_job(**job(f"held-{number}"))
    message = "More than 5 resources with PENDING or IN_PROGRESS status."
    refused("LimitExceededException", message, p.create_dataset_import_job, **job("held-6"))
    # Another account and another region have a quota of their own.
    other = client("AKIAOTHERS", "other-secret")
    other.create_dataset_import_job(**job("held-0", datasetArn=FOREIGN, roleArn=ROLE.replace(ACCOUNT, "444455556666")))
    far = client(region="us-east-1")
    far.create_dataset_import_job(**job("held-0", datasetArn=DATASET.replace("eu-west-1", "us-east-1")))
    control("POST", "jobs/finish", {"job": job_arn("held-0"), "outcome": "active"})
    p.create_dataset_import_job(**job("held-7"))
    control("DELETE", "holds", {"name": "held-"})
    eventually("all have ended", lambda: all(j["status"] == "ACTIVE" for j in json.loads(control("GET", "jobs")) if j["name"].startswith("held-")))


def signatures():
    lists = lambda **arguments: client(**arguments).list_datasets
    refused("UnrecognizedClientException", "security token included", lists(key="AKIAOTHER"))
    refused("InvalidSignatureException", "signature we calculated does not match", lists(secret="wrong"))
    refused("UnrecognizedClientException", "", lists(token="uncalled-for"))
    refused("UnrecognizedClientException", "", lists(key="ASIALOCAL", secret="temporary"))
    refused("UnrecognizedClientException", "", lists(key="ASIALOCAL", secret="temporary", token="another"))
    refused("ExpiredTokenException", "expired", lists(key="ASIAEXPIRED", secret="temporary", token="old"))
    client(key="ASIALOCAL", secret="temporary", token="session").list_datasets()
    for header, code, words in (
        (None, "MissingAuthenticationTokenException", "Missing Authentication Token"),
        ("AWS4-HMAC-SHA256 Credential=half", "IncompleteSignatureException", "Authorization header requires 'Signature' parameter."),
        ("AWS4-HMAC-SHA256 Credential=half, SignedHeaders=host, Signature=a", "IncompleteSignatureException", "Credential must have exactly 5 slash-delimited elements"),
        ("Bearer token", "IncompleteSignatureException", "'token' not a valid key=value pair (missing equal-sign) in Authorization header: 'Bearer token'."),
    ):
        unsigned = client()

        def spoil(request, header=header, **_):
            del request.headers["Authorization"]
            if header:
                request.headers["Authorization"] = header

        unsigned.meta.events.register("before-send.personalize.*", spoil)
        refused(code, words, unsigned.list_datasets)
    altered = client()

    def alter(request, **_):
        request.body = request.body.replace(b"}", b" }")
        request.headers["Content-Length"] = str(len(request.body))

    altered.meta.events.register("before-send.personalize.*", alter)
    refused("InvalidSignatureException", "does not match", altered.list_datasets)
    modify = SigV4Auth._modify_request_before_signing
    for minutes, words in ((-6, "Signature expired"), (6, "Signature not yet current"), (-4, None), (4, None)):

        def skewed(self, request, minutes=minutes):
            late = datetime.now(timezone.utc) + timedelta(minutes=minutes)
            request.context["timestamp"] = late.strftime("%Y%m%dT%H%M%SZ")
            modify(self, request)

        SigV4Auth._modify_request_before_signing = skewed
        try:
            if words:
                refused("InvalidSignatureException", words, client().list_datasets)
            else:
                client().list_datasets()
        finally:
            SigV4Auth._modify_request_before_signing = modify


def protocols():
    """What is no awsJson1.1, though signed as it should be, names no operation."""
    for content_type, path in (("application/x-amz-json-1.1; charset=utf-8", ""), ("application/x-amz-json-1.0", ""), ("text/plain", ""), (None, ""), ("application/x-amz-json-1.1", "foo")):
        odd = client()

        def spoil(request, content_type=content_type, path=path, **_):
            del request.headers["Content-Type"]
            if content_type:
                request.headers["Content-Type"] = content_type
            request.url += path

        odd.meta.events.register("before-sign.personalize.*", spoil)
        if "charset" in (content_type or ""):
            odd.list_schemas()
        else:
            refused("UnknownOperationException", "", odd.list_schemas)
    # Members that the model does not know are ignored, and null is as good as absent.
    def add(params, **_):
        params["body"] = params["body"].replace(b"{", b'{"nextToken": null, "shape": "round", ', 1).replace(b", }", b"}")

    lax = client()
    lax.meta.events.register("before-call.personalize.*", add)
    assert lax.list_schemas()["schemas"]


def retries():
    """The client's own retries ride out throttling, an internal error, a reset and a cut body."""
    for mode in ("legacy", "standard", "adaptive"):
        throttled, broken = {"error": {"code": "ThrottlingException"}}, {"error": {"code": "InternalServerException", "status": 500}}
        for action in (throttled, broken, "resetBefore"):
            control("POST", "faults", {"operation": "ListSchemas", "action": action})
        patient = client(retries={"mode": mode, "total_max_attempts": 5})
        assert patient.list_schemas()["ResponseMetadata"]["RetryAttempts"] == 3, mode
        assert json.loads(control("GET", "faults")) == []
    # A create whose answer is lost is sent again, and meets its own job.
    control("POST", "faults", {"operation": "CreateDatasetImportJob", "action": "resetAfter"})
    refused("ResourceAlreadyExistsException", job_arn("lost"), client(retries={"mode": "standard"}).create_dataset_import_job, **job("lost"))


if __name__ == "__main__":
    personalize = client()
    imports(personalize)
    failures(personalize)
    reads(personalize)
    creating(personalize)
    reading(personalize)
    tags(personalize)
    quota(personalize)
    signatures()
    protocols()
    retries()
    print("boto3: every operation and error as expected")
