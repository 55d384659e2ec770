"""boto3 calls every operation and provokes every error that the service model declares."""

import json
from datetime import datetime, timedelta, timezone

from botocore.auth import SigV4Auth
from botocore.waiter import WaiterModel, create_waiter_with_client

from common import ACCOUNT, BUCKET_DENIED, DATASET, FAILURES, FORBIDDEN_ROLE, GROUP, OTHER_DATASET, ROLE, client, control, deletion, deletion_arn, eventually, expect_error, job, job_arn, wait_until_finished

TAGS = [{"tagKey": str(n), "tagValue": ""} for n in range(51)]


def imports(p):
    arn = p.create_dataset_import_job(**job("first", publishAttributionMetricsToS3=True, tags=[{"tagKey": "a", "tagValue": "b"}]))["datasetImportJobArn"]
    assert arn == job_arn("first")
    found = wait_with_botocore_waiter(p, "first")
    expected = {"datasetArn": DATASET, "roleArn": ROLE, "importMode": "FULL", "publishAttributionMetricsToS3": True}
    assert expected.items() <= found.items(), found
    assert found["dataSource"] == {"dataLocation": "s3://bucket/interactions.csv"}
    assert abs(datetime.now(timezone.utc) - found["creationDateTime"]) < timedelta(minutes=5)
    assert found["creationDateTime"] < found["lastUpdatedDateTime"]
    # What the client parses equals what the stand-in stores.
    (stored,) = [stored for stored in json.loads(control("GET", "jobs")) if stored["name"] == "first"]
    assert (stored["createdMs"], stored["updatedMs"]) == tuple(round(found[m].timestamp() * 1000) for m in ("creationDateTime", "lastUpdatedDateTime"))
    assert (stored["status"], stored["dataLocation"], stored["roleArn"]) == (found["status"], found["dataSource"]["dataLocation"], found["roleArn"])
    p.create_dataset_import_job(**job("second", importMode="INCREMENTAL"))
    assert wait_until_finished(p, "second")["importMode"] == "INCREMENTAL"
    # roleArn is optional in the model. Without it in the request, the response has none.
    p.create_dataset_import_job(**{k: v for k, v in job("no-role").items() if k != "roleArn"})
    assert "roleArn" not in wait_until_finished(p, "no-role")


def wait_with_botocore_waiter(p, name):
    """Waits with a botocore waiter that is defined here, because botocore has none for this service."""
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
        found = wait_until_finished(p, name)
        assert (found["status"], found["failureReason"]) == ("CREATE FAILED", reason), found
        # A failed job still occupies its name.
        expect_error("ResourceAlreadyExistsException", f"Another resource with Arn {job_arn(name)} already exists.", p.create_dataset_import_job, **job(name))
    p.create_dataset_import_job(**job("huge", importMode="INCREMENTAL", dataSource={"dataLocation": "s3://bucket/huge.csv"}))
    assert wait_until_finished(p, "huge")["failureReason"].endswith("The maximum size is 1 GB.")
    p.create_dataset_import_job(**job("folder", dataSource={"dataLocation": "s3://bucket/folder/"}))
    assert wait_until_finished(p, "folder")["status"] == "ACTIVE"


def reads(p):
    dataset = p.describe_dataset(datasetArn=DATASET)["dataset"]
    assert (dataset["datasetType"], dataset["status"], dataset["name"]) == ("Interactions", "ACTIVE", "shop-interactions")
    assert dataset["datasetGroupArn"] == DATASET.replace("dataset/shop/INTERACTIONS", "dataset-group/shop")
    schema = p.describe_schema(schemaArn=dataset["schemaArn"])["schema"]
    assert [field["name"] for field in json.loads(schema["schema"])["fields"]] == ["USER_ID", "ITEM_ID", "TIMESTAMP"]
    found = [d["datasetArn"] for d in list_all(p, "list_datasets", "datasets", datasetGroupArn=dataset["datasetGroupArn"])]
    assert DATASET in found and OTHER_DATASET not in found, found
    assert p.list_datasets(datasetGroupArn=dataset["datasetGroupArn"] + "s")["datasets"] == []
    assert dataset["schemaArn"] in [s["schemaArn"] for s in list_all(p, "list_schemas", "schemas")]
    jobs = [j["jobName"] for j in list_all(p, "list_dataset_import_jobs", "datasetImportJobs", datasetArn=DATASET)]
    assert len(jobs) == len(set(jobs)) > 6, jobs
    assert p.list_dataset_import_jobs(datasetArn=DATASET.replace("INTER", "INTER2"))["datasetImportJobs"] == []


def list_all(p, operation, member, **arguments):
    """Lists all items with the paginator of boto3 in pages of two; they equal those of a single page."""
    pages = list(p.get_paginator(operation).paginate(PaginationConfig={"PageSize": 2}, **arguments))
    assert all(len(page[member]) == 2 for page in pages[:-1]) and "nextToken" not in pages[-1]
    items = [item for page in pages for item in page[member]]
    assert items == getattr(p, operation)(**arguments)[member]
    return items


def create_errors(p):
    create = p.create_dataset_import_job
    expect_error("ValidationException", "1 validation error detected: Value '-' at 'jobName' failed", create, **job("-"))
    expect_error("ValidationException", "2 validation errors", create, **job("x" * 64 + "!"))
    expect_error("ValidationException", "Value null at 'datasetArn'", create, jobName="a", dataSource={})
    expect_error("ValidationException", "enum value set: [FULL, INCREMENTAL]", create, **job("a", importMode="HALF"))
    expect_error("ValidationException", "at 'tags.1.member.tagKey'", create, **job("a", tags=[{"tagKey": "", "tagValue": ""}]))
    expect_error("SerializationException", "NUMBER_VALUE can not be converted to a String", create, **job(7))
    expect_error("SerializationException", "STRING_VALUE can not be converted to a Boolean", create, **job("a", publishAttributionMetricsToS3="yes"))
    expect_error("InvalidInputException", "Invalid Data location.", create, **job("a", dataSource={}))
    expect_error("AccessDeniedException", "iam:PassRole on resource: " + FORBIDDEN_ROLE, create, **job("a", roleArn=FORBIDDEN_ROLE))
    expect_error("AccessDeniedException", "Cross-account pass role is not allowed.", create, **job("a", roleArn=ROLE.replace(ACCOUNT, "444455556666")))
    expect_error("InvalidInputException", BUCKET_DENIED, create, **job("a", dataSource={"dataLocation": "s3://locked/interactions.csv"}))
    expect_error("ResourceNotFoundException", "", create, **job("a", datasetArn=DATASET + "X"))
    expect_error("InvalidInputException", "needs an earlier", create, **job("a", datasetArn=DATASET.replace("INTER", "INTER2"), importMode="INCREMENTAL"))
    expect_error("AccessDeniedException", f"arn:aws:iam::{ACCOUNT}:user/AKIALOCAL is not authorized", create, **job("a", datasetArn=OTHER_DATASET))
    expect_error("InvalidInputException", "does not match the region", create, **job("a", datasetArn=DATASET.replace("eu-west-1", "us-east-1")))
    expect_error("TooManyTagsException", "", create, **job("a", tags=TAGS))
    expect_error("InvalidInputException", "reserved", create, **job("a", tags=[{"tagKey": "aws:x", "tagValue": ""}]))
    expect_error("InvalidInputException", "Duplicate", create, **job("a", tags=TAGS[:1] * 2))
    for status in ("CREATE PENDING", "CREATE FAILED", "DELETE IN_PROGRESS"):
        control("POST", "datasets/status", {"arn": DATASET, "status": status})
        expect_error("ResourceInUseException", status, create, **job("a"))
    control("POST", "datasets/status", {"arn": DATASET, "status": "ACTIVE"})
    # None of these requests created a job.
    expect_error("ResourceNotFoundException", job_arn("a"), p.describe_dataset_import_job, datasetImportJobArn=job_arn("a"))


def read_errors(p):
    expect_error("InvalidInputException", "", p.describe_dataset_import_job, datasetImportJobArn=DATASET)
    expect_error("InvalidInputException", "", p.describe_dataset, datasetArn=job_arn("first"))
    expect_error("ResourceNotFoundException", "", p.describe_dataset, datasetArn=DATASET + "X")
    expect_error("InvalidInputException", "", p.describe_schema, schemaArn=DATASET)
    expect_error("ResourceNotFoundException", "", p.describe_schema, schemaArn=DATASET.replace("dataset/shop/", "schema/"))
    expect_error("InvalidInputException", "", p.list_dataset_import_jobs, datasetArn=job_arn("first"))
    expect_error("InvalidInputException", "", p.list_datasets, datasetGroupArn=DATASET)
    token = p.list_dataset_import_jobs(maxResults=1)["nextToken"]
    for call in (p.list_dataset_import_jobs, p.list_datasets, p.list_schemas):
        expect_error("InvalidNextTokenException", "", call, nextToken="invalid")
        expect_error("ValidationException", "less than or equal to 100", call, maxResults=101)
        expect_error("ValidationException", "greater than or equal to 1", call, maxResults=0)
    # A token is valid only for the list that returned it.
    expect_error("InvalidNextTokenException", "", p.list_datasets, nextToken=token)
    expect_error("InvalidNextTokenException", "", p.list_dataset_import_jobs, nextToken=token, datasetArn=DATASET)
    expect_error("UnknownOperationException", "", p.list_solutions)


def tags(p):
    arn = job_arn("first")
    current_tags = lambda: {tag["tagKey"]: tag["tagValue"] for tag in p.list_tags_for_resource(resourceArn=arn)["tags"]}
    assert current_tags() == {"a": "b"}
    p.tag_resource(resourceArn=arn, tags=[{"tagKey": "c", "tagValue": ""}, {"tagKey": "a", "tagValue": "new"}])
    assert current_tags() == {"a": "new", "c": ""}
    p.untag_resource(resourceArn=arn, tagKeys=["a", "never-there"])
    assert current_tags() == {"c": ""}
    # Letters, digits and spaces of any script, also outside the Basic Multilingual Plane.
    unicode_tags = {"Größe": "日本語 テスト", "ключ\u3000١": "𝒳𠮷"}
    p.tag_resource(resourceArn=arn, tags=[{"tagKey": key, "tagValue": value} for key, value in unicode_tags.items()])
    assert current_tags() == {"c": ""} | unicode_tags
    p.untag_resource(resourceArn=arn, tagKeys=list(unicode_tags))
    expect_error("ValidationException", "Value at 'tags.1.member.tagValue' failed", p.tag_resource, resourceArn=arn, tags=[{"tagKey": "a", "tagValue": "\N{SNOWMAN}"}])
    # The limit is 50 tags, also over several requests. Replacing a tag does not count.
    p.tag_resource(resourceArn=arn, tags=TAGS[:49])
    p.tag_resource(resourceArn=arn, tags=[{"tagKey": "7", "tagValue": "seven"}])
    expect_error("TooManyTagsException", "50", p.tag_resource, resourceArn=arn, tags=TAGS[50:])
    assert len(current_tags()) == 50 and current_tags()["7"] == "seven"
    p.untag_resource(resourceArn=arn, tagKeys=list(current_tags()))
    assert current_tags() == {}
    expect_error("TooManyTagsException", "50", p.tag_resource, resourceArn=DATASET, tags=TAGS)
    expect_error("InvalidInputException", "reserved", p.tag_resource, resourceArn=arn, tags=[{"tagKey": "AWS:x", "tagValue": ""}])
    expect_error("InvalidInputException", "Duplicate", p.tag_resource, resourceArn=arn, tags=TAGS[:1] * 2)
    expect_error("ValidationException", "regular expression", p.tag_resource, resourceArn=arn, tags=[{"tagKey": "a\n", "tagValue": ""}])
    expect_error("ValidationException", "length less than or equal to 256", p.tag_resource, resourceArn=arn, tags=[{"tagKey": "a", "tagValue": "v" * 257}])
    expect_error("TooManyTagKeysException", "50", p.untag_resource, resourceArn=DATASET, tagKeys=[str(n) for n in range(51)])
    other_region = DATASET.replace("eu-west-1", "us-east-1")
    for call, more in ((p.tag_resource, {"tags": []}), (p.untag_resource, {"tagKeys": []}), (p.list_tags_for_resource, {})):
        expect_error("ResourceNotFoundException", "", call, resourceArn=DATASET + "X", **more)
        expect_error("InvalidInputException", "region", call, resourceArn=other_region, **more)
        # It is not documented when the service returns these errors. Only faults cause them.
        for code in ("ResourceInUseException", "LimitExceededException") if call == p.tag_resource else ("ResourceInUseException",):
            control("POST", "faults", {"name": arn, "action": {"error": {"code": code, "message": "injected"}}})
            expect_error(code, "injected", call, resourceArn=arn, **more)


def deletions(p):
    create, describe = p.create_data_deletion_job, p.describe_data_deletion_job
    control("POST", "holds", {"name": "delete-"})
    assert create(**deletion("delete-1", tags=TAGS[:1]))["dataDeletionJobArn"] == deletion_arn("delete-1")
    found = describe(dataDeletionJobArn=deletion_arn("delete-1"))["dataDeletionJob"]
    expected = {"jobName": "delete-1", "datasetGroupArn": GROUP, "roleArn": ROLE, "status": "PENDING"}
    assert expected.items() <= found.items() and "numDeleted" not in found, found
    assert found["dataSource"] == {"dataLocation": "s3://bucket/users.csv"}
    assert p.list_tags_for_resource(resourceArn=deletion_arn("delete-1"))["tags"] == TAGS[:1]
    create(**deletion("delete-2"))
    # The most recent one is the first. boto3 has no paginator for them.
    first = p.list_data_deletion_jobs(datasetGroupArn=GROUP, maxResults=1)
    second = p.list_data_deletion_jobs(datasetGroupArn=GROUP, maxResults=1, nextToken=first["nextToken"])
    assert [j["jobName"] for j in first["dataDeletionJobs"] + second["dataDeletionJobs"]] == ["delete-2", "delete-1"]
    assert "nextToken" not in second
    assert p.list_data_deletion_jobs(datasetGroupArn=GROUP + "s")["dataDeletionJobs"] == []
    control("DELETE", "holds", {"name": "delete-"})
    done = eventually("the deletion is over", lambda: (job := describe(dataDeletionJobArn=deletion_arn("delete-1"))["dataDeletionJob"])["status"] == "COMPLETED" and job)
    assert done["numDeleted"] == 0 and done["creationDateTime"] <= done["lastUpdatedDateTime"]
    control("POST", "holds", {"name": "delete-"})
    create(**deletion("delete-3"))
    control("POST", "deletions/finish", {"job": "delete-3", "outcome": {"failed": "no users"}})
    failed = describe(dataDeletionJobArn=deletion_arn("delete-3"))["dataDeletionJob"]
    assert (failed["status"], failed["failureReason"]) == ("FAILED", "no users"), failed
    assert p.list_data_deletion_jobs(maxResults=1)["dataDeletionJobs"][0]["failureReason"] == "no users"
    # Each requirement of a request.
    expect_error("ValidationException", "at 'jobName' failed", create, **deletion("-"))
    expect_error("ValidationException", "Value null at 'roleArn'", create, **{k: v for k, v in deletion("a").items() if k != "roleArn"})
    expect_error("InvalidInputException", "Invalid Data location.", create, **deletion("a", dataSource={}))
    expect_error("InvalidInputException", "", create, **deletion("a", datasetGroupArn=DATASET))
    expect_error("InvalidInputException", BUCKET_DENIED, create, **deletion("a", dataSource={"dataLocation": "s3://locked/users.csv"}))
    expect_error("AccessDeniedException", "iam:PassRole", create, **deletion("a", roleArn=FORBIDDEN_ROLE))
    expect_error("ResourceNotFoundException", GROUP + "s", create, **deletion("a", datasetGroupArn=GROUP + "s"))
    expect_error("ResourceAlreadyExistsException", deletion_arn("delete-1"), create, **deletion("delete-1"))
    expect_error("TooManyTagsException", "", create, **deletion("a", tags=TAGS))
    expect_error("InvalidInputException", "", describe, dataDeletionJobArn=job_arn("first"))
    expect_error("ResourceNotFoundException", "", describe, dataDeletionJobArn=deletion_arn("a"))
    expect_error("InvalidInputException", "", p.list_data_deletion_jobs, datasetGroupArn=DATASET)
    expect_error("InvalidNextTokenException", "", p.list_data_deletion_jobs, nextToken="invalid")
    # It is not documented when the service returns these errors. Only faults cause them.
    for code in ("ResourceInUseException", "LimitExceededException"):
        control("POST", "faults", {"operation": "CreateDataDeletionJob", "name": "a", "action": {"error": {"code": code, "message": "injected"}}})
        expect_error(code, "injected", create, **deletion("a"))


def quota(p):
    control("POST", "holds", {"name": "held-"})
    for number in range(5):
        p.create_dataset_import_job(**job(f"held-{number}"))
    message = "More than 5 resources with PENDING or IN_PROGRESS status."
    expect_error("LimitExceededException", message, p.create_dataset_import_job, **job("held-6"))
    # The quota is per account and region.
    other = client("AKIAOTHERS", "other-secret")
    other.create_dataset_import_job(**job("held-0", datasetArn=OTHER_DATASET, roleArn=ROLE.replace(ACCOUNT, "444455556666")))
    other_region = client(region="us-east-1")
    other_region.create_dataset_import_job(**job("held-0", datasetArn=DATASET.replace("eu-west-1", "us-east-1")))
    control("POST", "jobs/finish", {"job": job_arn("held-0"), "outcome": "active"})
    p.create_dataset_import_job(**job("held-7"))
    control("DELETE", "holds", {"name": "held-"})
    eventually("all jobs have finished", lambda: all(j["status"] == "ACTIVE" for j in json.loads(control("GET", "jobs")) if j["name"].startswith("held-")))


def signatures():
    list_with = lambda **arguments: client(**arguments).list_datasets
    expect_error("UnrecognizedClientException", "security token included", list_with(key="AKIAOTHER"))
    expect_error("InvalidSignatureException", "signature we calculated does not match", list_with(secret="wrong"))
    expect_error("UnrecognizedClientException", "", list_with(token="unexpected"))
    expect_error("UnrecognizedClientException", "", list_with(key="ASIALOCAL", secret="temporary"))
    expect_error("UnrecognizedClientException", "", list_with(key="ASIALOCAL", secret="temporary", token="another"))
    expect_error("ExpiredTokenException", "expired", list_with(key="ASIAEXPIRED", secret="temporary", token="old"))
    client(key="ASIALOCAL", secret="temporary", token="session").list_datasets()
    for header, code, message in (
        (None, "MissingAuthenticationTokenException", "Missing Authentication Token"),
        ("AWS4-HMAC-SHA256 Credential=half", "IncompleteSignatureException", "Authorization header requires 'Signature' parameter."),
        ("AWS4-HMAC-SHA256 Credential=half, SignedHeaders=host, Signature=a", "IncompleteSignatureException", "Credential must have exactly 5 slash-delimited elements"),
        ("Bearer token", "IncompleteSignatureException", "'token' not a valid key=value pair (missing equal-sign) in Authorization header: 'Bearer token'."),
    ):
        unsigned = client()

        def replace_headers(request, header=header, **_):
            del request.headers["Authorization"]
            if header:
                request.headers["Authorization"] = header

        unsigned.meta.events.register("before-send.personalize.*", replace_headers)
        expect_error(code, message, unsigned.list_datasets)
    altered = client()

    def alter(request, **_):
        request.body = request.body.replace(b"}", b" }")
        request.headers["Content-Length"] = str(len(request.body))

    altered.meta.events.register("before-send.personalize.*", alter)
    expect_error("InvalidSignatureException", "does not match", altered.list_datasets)
    modify = SigV4Auth._modify_request_before_signing
    for minutes, message in ((-6, "Signature expired"), (6, "Signature not yet current"), (-4, None), (4, None)):

        def skewed(self, request, minutes=minutes):
            now = datetime.now(timezone.utc) + timedelta(minutes=minutes)
            request.context["timestamp"] = now.strftime("%Y%m%dT%H%M%SZ")
            modify(self, request)

        SigV4Auth._modify_request_before_signing = skewed
        try:
            if message:
                expect_error("InvalidSignatureException", message, client().list_datasets)
            else:
                client().list_datasets()
        finally:
            SigV4Auth._modify_request_before_signing = modify


def protocols():
    """Signed requests that are not awsJson1.1 get UnknownOperationException."""
    for content_type, path in (("application/x-amz-json-1.1; charset=utf-8", ""), ("application/x-amz-json-1.0", ""), ("text/plain", ""), (None, ""), ("application/x-amz-json-1.1", "foo")):
        personalize = client()

        def replace_headers(request, content_type=content_type, path=path, **_):
            del request.headers["Content-Type"]
            if content_type:
                request.headers["Content-Type"] = content_type
            request.url += path

        personalize.meta.events.register("before-sign.personalize.*", replace_headers)
        if "charset" in (content_type or ""):
            personalize.list_schemas()
        else:
            expect_error("UnknownOperationException", "", personalize.list_schemas)
    # Members that are not in the model are ignored, and null counts as absent.
    def add(params, **_):
        params["body"] = params["body"].replace(b"{", b'{"nextToken": null, "shape": "round", ', 1).replace(b", }", b"}")

    personalize = client()
    personalize.meta.events.register("before-call.personalize.*", add)
    assert personalize.list_schemas()["schemas"]


def retries():
    """The retries of boto3 recover from throttling, an internal error and a reset."""
    for mode in ("legacy", "standard", "adaptive"):
        throttled, internal = {"error": {"code": "ThrottlingException"}}, {"error": {"code": "InternalServerException", "status": 500}}
        for action in (throttled, internal, "resetBefore"):
            control("POST", "faults", {"operation": "ListSchemas", "action": action})
        personalize = client(retries={"mode": mode, "total_max_attempts": 5})
        assert personalize.list_schemas()["ResponseMetadata"]["RetryAttempts"] == 3, mode
        assert json.loads(control("GET", "faults")) == []
    # After a lost response boto3 retries the create, which finds the job that it created.
    control("POST", "faults", {"operation": "CreateDatasetImportJob", "action": "resetAfter"})
    expect_error("ResourceAlreadyExistsException", job_arn("lost"), client(retries={"mode": "standard"}).create_dataset_import_job, **job("lost"))


if __name__ == "__main__":
    personalize = client()
    imports(personalize)
    failures(personalize)
    reads(personalize)
    create_errors(personalize)
    read_errors(personalize)
    tags(personalize)
    deletions(personalize)
    quota(personalize)
    signatures()
    protocols()
    retries()
    print("boto3: every operation and error as expected")
