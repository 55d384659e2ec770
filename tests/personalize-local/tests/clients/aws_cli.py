"""The AWS CLI calls every operation and provokes every error that the service model declares.

Only the first calls start the CLI as a process. All others call its entry point in this process, which is much faster.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone

from botocore.auth import SigV4Auth

from common import ACCOUNT, BUCKET_DENIED, DATASET, ENDPOINT, FAILURES, FORBIDDEN_ROLE, GROUP, OTHER_DATASET, ROLE, control, deletion_arn, eventually, job_arn, validate_response

CONFIG = tempfile.NamedTemporaryFile("w", suffix=".config")
# Without client-side validation, invalid requests reach the stand-in.
CONFIG.write("[default]\nparameter_validation = false\n")
CONFIG.flush()
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIALOCAL",
    "AWS_SECRET_ACCESS_KEY": "local-secret",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ENDPOINT_URL_PERSONALIZE": ENDPOINT,
    "AWS_CONFIG_FILE": CONFIG.name,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_MAX_ATTEMPTS": "1",
}
os.environ.update(ENVIRONMENT)
from awscli.clidriver import create_clidriver  # noqa: E402: it reads the environment


def create_driver():
    """A CLI with the settings of the current environment, whose responses are validated."""
    driver = create_clidriver()
    driver.session.register("after-call.personalize.*", validate_response)
    return driver


DRIVER = create_driver()


def aws(command, *arguments):
    """Returns exit status, standard output and standard error."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = DRIVER.main(["personalize", command, *arguments])
        except SystemExit as end:
            status = end.code
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return status, *texts


def succeed(command, *arguments):
    status, out, err = aws(command, *arguments)
    assert status == 0, (command, arguments, err)
    return json.loads(out) if out.strip() else None


def expect_error(code, message, command, *arguments):
    status, out, err = aws(command, *arguments)
    assert status != 0 and f"An error occurred ({code}) when calling the " in err and message in err, (command, status, out, err)


def create(name, **changes):
    options = {"dataset-arn": DATASET, "data-source": "dataLocation=s3://bucket/interactions.csv", "role-arn": ROLE} | changes
    return ["create-dataset-import-job", "--job-name", name, *(part for name, value in options.items() for part in ("--" + name.replace("_", "-"), value))]


def process():
    """Runs the CLI as a process."""
    command = [sys.executable, "-m", "awscli", "personalize"]
    created = json.loads(subprocess.check_output([*command, *create("cli"), "--tags", "tagKey=a,tagValue=b", "--publish-attribution-metrics-to-s3"]))
    assert created == {"datasetImportJobArn": job_arn("cli")}
    again = subprocess.run([*command, *create("cli")], capture_output=True, text=True)
    assert again.returncode != 0 and "(ResourceAlreadyExistsException)" in again.stderr, again


def reads():
    describe = ["describe-dataset-import-job", "--dataset-import-job-arn", job_arn("cli")]
    job = eventually("the import has finished", lambda: (job := succeed(*describe)["datasetImportJob"])["status"] == "ACTIVE" and job)
    (stored,) = json.loads(control("GET", "jobs"))
    assert job["jobName"] == stored["name"] and job["datasetArn"] == stored["datasetArn"] and job["roleArn"] == stored["roleArn"], (job, stored)
    assert job["dataSource"]["dataLocation"] == stored["dataLocation"] and job["publishAttributionMetricsToS3"] is True
    assert succeed("list-tags-for-resource", "--resource-arn", job_arn("cli")) == {"tags": stored["tags"]} == {"tags": [{"tagKey": "a", "tagValue": "b"}]}
    succeed(*create("second", import_mode="INCREMENTAL"))
    assert succeed("tag-resource", "--resource-arn", job_arn("cli"), "--tags", "tagKey=c,tagValue=d") is None
    assert succeed("untag-resource", "--resource-arn", job_arn("cli"), "--tag-keys", "a") is None
    assert succeed("list-tags-for-resource", "--resource-arn", job_arn("cli"))["tags"] == [{"tagKey": "c", "tagValue": "d"}]
    # The paginator of the CLI, and its continuation token.
    pages = succeed("list-dataset-import-jobs", "--page-size", "1")
    assert [job["jobName"] for job in pages["datasetImportJobs"]] == ["cli", "second"]
    first = succeed("list-dataset-import-jobs", "--max-items", "1")
    rest = succeed("list-dataset-import-jobs", "--starting-token", first["NextToken"])
    assert [j["jobName"] for j in first["datasetImportJobs"] + rest["datasetImportJobs"]] == ["cli", "second"]
    dataset = succeed("describe-dataset", "--dataset-arn", DATASET)["dataset"]
    assert dataset["datasetArn"] in [d["datasetArn"] for d in succeed("list-datasets", "--page-size", "1")["datasets"]]
    schema = succeed("describe-schema", "--schema-arn", dataset["schemaArn"])["schema"]
    assert schema["schemaArn"] in [s["schemaArn"] for s in succeed("list-schemas")["schemas"]]


def errors():
    missing, schema = DATASET + "X", DATASET.replace("dataset/shop/", "schema/")
    expect_error("ValidationException", "at 'jobName' failed to satisfy constraint", *create("-"))
    expect_error("SerializationException", "NUMBER_VALUE can not be converted to a String", "create-dataset-import-job", "--cli-input-json", json.dumps({"jobName": 7, "datasetArn": DATASET, "dataSource": {}}))
    expect_error("InvalidInputException", "reserved", *create("a"), "--tags", "tagKey=aws:x,tagValue=")
    expect_error("InvalidInputException", "Duplicate", *create("a"), "--tags", "tagKey=a,tagValue=1", "tagKey=a,tagValue=2")
    expect_error("InvalidInputException", BUCKET_DENIED, *create("a", data_source="dataLocation=s3://locked/data.csv"))
    expect_error("InvalidInputException", "needs an earlier", *create("a", dataset_arn=DATASET.replace("INTER", "INTER2"), import_mode="INCREMENTAL"))
    expect_error("AccessDeniedException", "Cross-account pass role is not allowed.", *create("a", role_arn=ROLE.replace(ACCOUNT, "444455556666")))
    expect_error("InvalidInputException", "Invalid Data location.", "create-dataset-import-job", "--job-name", "a", "--dataset-arn", DATASET, "--data-source", "{}")
    expect_error("AccessDeniedException", "iam:PassRole", *create("a", role_arn=FORBIDDEN_ROLE))
    expect_error("AccessDeniedException", "not authorized", *create("a", dataset_arn=OTHER_DATASET))
    expect_error("ResourceNotFoundException", missing, *create("a", dataset_arn=missing))
    many = [f"tagKey={n},tagValue=" for n in range(51)]
    expect_error("TooManyTagsException", "50", *create("a"), "--tags", *many)
    control("POST", "datasets/status", {"arn": DATASET, "status": "DELETE PENDING"})
    expect_error("ResourceInUseException", "DELETE PENDING", *create("a"))
    control("POST", "datasets/status", {"arn": DATASET, "status": "ACTIVE"})
    control("POST", "holds", {"name": "held"})
    for number in range(5):
        succeed(*create(f"held-{number}"))
    expect_error("LimitExceededException", "More than 5 resources with PENDING or IN_PROGRESS status.", *create("a"))
    control("DELETE", "holds", {"name": "held"})
    expect_error("InvalidInputException", "", "describe-dataset-import-job", "--dataset-import-job-arn", DATASET)
    expect_error("ResourceNotFoundException", "", "describe-dataset-import-job", "--dataset-import-job-arn", job_arn("a"))
    expect_error("InvalidInputException", "", "list-dataset-import-jobs", "--dataset-arn", job_arn("cli"))
    expect_error("InvalidInputException", "", "describe-dataset", "--dataset-arn", schema)
    expect_error("ResourceNotFoundException", "", "describe-dataset", "--dataset-arn", missing)
    expect_error("InvalidInputException", "", "list-datasets", "--dataset-group-arn", DATASET)
    expect_error("InvalidInputException", "", "describe-schema", "--schema-arn", DATASET)
    expect_error("ResourceNotFoundException", "", "describe-schema", "--schema-arn", schema)
    for command in ("list-dataset-import-jobs", "list-datasets", "list-schemas"):
        expect_error("InvalidNextTokenException", "", command, "--no-paginate", "--next-token", "invalid")
        expect_error("ValidationException", "less than or equal to 100", command, "--no-paginate", "--max-results", "101")
    tag, untag = ["--tags", "tagKey=a,tagValue="], ["--tag-keys", "a"]
    for command, more in (("tag-resource", tag), ("untag-resource", untag), ("list-tags-for-resource", [])):
        expect_error("ResourceNotFoundException", missing, command, "--resource-arn", missing, *more)
        expect_error("InvalidInputException", "region", command, "--resource-arn", DATASET.replace("eu-west-1", "us-east-1"), *more)
        for code in ("ResourceInUseException", "LimitExceededException") if command == "tag-resource" else ("ResourceInUseException",):
            control("POST", "faults", {"operation": command.title().replace("-", ""), "action": {"error": {"code": code}}})
            expect_error(code, "", command, "--resource-arn", DATASET, *more)
    expect_error("TooManyTagsException", "50", "tag-resource", "--resource-arn", DATASET, "--tags", *many)
    expect_error("TooManyTagKeysException", "50", "untag-resource", "--resource-arn", DATASET, "--tag-keys", *map(str, range(51)))
    expect_error("UnknownOperationException", "", "list-solutions")


def deletions():
    """Data deletion jobs: every operation and error."""
    create = lambda name, **changes: ["create-data-deletion-job", "--job-name", name, *(part for option, value in ({"dataset-group-arn": GROUP, "data-source": "dataLocation=s3://bucket/users.csv", "role-arn": ROLE} | changes).items() for part in ("--" + option.replace("_", "-"), value))]
    assert succeed(*create("delete")) == {"dataDeletionJobArn": deletion_arn("delete")}
    describe = lambda arn: ["describe-data-deletion-job", "--data-deletion-job-arn", arn]
    job = eventually("the deletion is over", lambda: (job := succeed(*describe(deletion_arn("delete")))["dataDeletionJob"])["status"] == "COMPLETED" and job)
    assert (job["datasetGroupArn"], job["roleArn"]) == (GROUP, ROLE), job
    listed = succeed("list-data-deletion-jobs", "--dataset-group-arn", GROUP, "--max-results", "1")["dataDeletionJobs"]
    assert [job["dataDeletionJobArn"] for job in listed] == [deletion_arn("delete")]
    expect_error("InvalidInputException", "Invalid Data location.", "create-data-deletion-job", "--job-name", "a", "--dataset-group-arn", GROUP, "--role-arn", ROLE, "--data-source", "{}")
    expect_error("ResourceNotFoundException", GROUP + "s", *create("a", dataset_group_arn=GROUP + "s"))
    expect_error("ResourceAlreadyExistsException", deletion_arn("delete"), *create("delete"))
    expect_error("TooManyTagsException", "50", *create("a"), "--tags", *[f"tagKey={n},tagValue=" for n in range(51)])
    for code in ("ResourceInUseException", "LimitExceededException"):
        control("POST", "faults", {"operation": "CreateDataDeletionJob", "action": {"error": {"code": code}}})
        expect_error(code, "", *create("a"))
    expect_error("InvalidInputException", "", *describe(DATASET))
    expect_error("ResourceNotFoundException", "", *describe(deletion_arn("a")))
    expect_error("InvalidInputException", "", "list-data-deletion-jobs", "--dataset-group-arn", DATASET)
    expect_error("InvalidNextTokenException", "", "list-data-deletion-jobs", "--next-token", "invalid")


def failures():
    """Imports that fail, with their complete failureReason."""
    for name, (location, reason) in FAILURES.items():
        succeed(*create(f"fails-{name}", data_source=f"dataLocation={location}"))
        describe = ["describe-dataset-import-job", "--dataset-import-job-arn", job_arn(f"fails-{name}")]
        job = eventually(f"{name} has finished", lambda: (job := succeed(*describe)["datasetImportJob"])["status"] in ("ACTIVE", "CREATE FAILED") and job)
        assert (job["status"], job["failureReason"]) == ("CREATE FAILED", reason), job


def signatures():
    """Wrong, missing and expired signatures."""
    global DRIVER
    temporary = {"AWS_ACCESS_KEY_ID": "ASIALOCAL", "AWS_SECRET_ACCESS_KEY": "temporary"}
    for changes, code, message in (
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "InvalidSignatureException", "does not match"),
        ({"AWS_ACCESS_KEY_ID": "AKIAOTHER"}, "UnrecognizedClientException", "is invalid"),
        ({"AWS_ACCESS_KEY_ID": "AKIA/OTHER"}, "IncompleteSignatureException", "Credential must have exactly 5 slash-delimited elements"),
        ({"AWS_SESSION_TOKEN": "unexpected"}, "UnrecognizedClientException", "is invalid"),
        (temporary, "UnrecognizedClientException", "is invalid"),
        (temporary | {"AWS_SESSION_TOKEN": "another"}, "UnrecognizedClientException", "is invalid"),
        ({"AWS_ACCESS_KEY_ID": "ASIAEXPIRED", "AWS_SECRET_ACCESS_KEY": "temporary", "AWS_SESSION_TOKEN": "old"}, "ExpiredTokenException", "is expired"),
        (temporary | {"AWS_SESSION_TOKEN": "session"}, None, None),
    ):
        os.environ.update(changes)
        DRIVER = create_driver()
        expect_error(code, message, "list-schemas") if code else succeed("list-schemas")
        for name in changes:
            os.environ.pop(name)
        os.environ.update(ENVIRONMENT)
    DRIVER = create_driver()
    expect_error("MissingAuthenticationTokenException", "Missing Authentication Token", "list-schemas", "--no-sign-request")
    # A new driver, because the option stays in the session.
    DRIVER = create_driver()
    modify = SigV4Auth._modify_request_before_signing
    for minutes, message in ((-6, "Signature expired"), (6, "Signature not yet current"), (-4, None), (4, None)):

        def skewed(self, request, minutes=minutes):
            request.context["timestamp"] = (datetime.now(timezone.utc) + timedelta(minutes=minutes)).strftime("%Y%m%dT%H%M%SZ")
            modify(self, request)

        SigV4Auth._modify_request_before_signing = skewed
        try:
            expect_error("InvalidSignatureException", message, "list-schemas") if message else succeed("list-schemas")
        finally:
            SigV4Auth._modify_request_before_signing = modify


def retries():
    """The retries of the CLI recover from throttling and a reset."""
    global DRIVER
    os.environ.update({"AWS_MAX_ATTEMPTS": "3", "AWS_RETRY_MODE": "standard"})
    DRIVER = create_driver()
    for action in ({"error": {"code": "ThrottlingException"}}, "resetBefore"):
        control("POST", "faults", {"operation": "ListSchemas", "action": action})
    assert succeed("list-schemas")["schemas"]
    assert json.loads(control("GET", "faults")) == []


if __name__ == "__main__":
    process()
    reads()
    errors()
    deletions()
    failures()
    signatures()
    retries()
    print("aws: every operation and error as expected")
