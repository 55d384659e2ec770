"""The AWS CLI calls every operation and provokes every error that botocore's service model declares.

All but the first calls run the CLI's own entry point inside this process: starting Python anew each time would take
longer than everything else.
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

from common import ACCOUNT, DATASET, ENDPOINT, FAILURES, FOREIGN, LOCKED, REFUSED_ROLE, ROLE, control, eventually, job_arn, judge

CONFIG = tempfile.NamedTemporaryFile("w", suffix=".config")
# What the CLI would refuse by itself is for the stand-in to refuse.
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



def driver():
    """The CLI as the environment now has it; what it parses is judged like boto3's."""
    made = create_clidriver()
    made.session.register("after-call.personalize.*", judge)
    return made


DRIVER = driver()


def aws(command, *arguments):
    """Exit status, standard output, standard error."""
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


def answer(command, *arguments):
    status, out, err = aws(command, *arguments)
    assert status == 0, (command, arguments, err)
    return json.loads(out) if out.strip() else None


def refused(code, words, command, *arguments):
    status, out, err = aws(command, *arguments)
    assert status != 0 and f"An error occurred ({code}) when calling the " in err and words in err, (command, status, out, err)


def create(name, **changed):
    options = {"dataset-arn": DATASET, "data-source": "dataLocation=s3://bucket/interactions.csv", "role-arn": ROLE} | changed
    return ["create-dataset-import-job", "--job-name", name, *(part for name, value in options.items() for part in ("--" + name.replace("_", "-"), value))]


def program():
    """The program itself, as a person runs it."""
    command = [sys.executable, "-m", "awscli", "personalize"]
    made = json.loads(subprocess.check_output([*command, *create("cli"), "--tags", "tagKey=a,tagValue=b", "--publish-attribution-metrics-to-s3"]))
    assert made == {"datasetImportJobArn": job_arn("cli")}
    again = subprocess.run([*command, *create("cli")], capture_output=True, text=True)
    assert again.returncode != 0 and "(ResourceAlreadyExistsException)" in again.stderr, again


def reads():
    describe = ["describe-dataset-import-job", "--dataset-import-job-arn", job_arn("cli")]
    job = eventually("the import ends", lambda: (found := answer(*describe)["datasetImportJob"])["status"] == "ACTIVE" and found)
    (held,) = json.loads(control("GET", "jobs"))
    assert job["jobName"] == held["name"] and job["datasetArn"] == held["datasetArn"] and job["roleArn"] == held["roleArn"], (job, held)
    assert job["dataSource"]["dataLocation"] == held["dataLocation"] and job["publishAttributionMetricsToS3"] is True
    assert answer("list-tags-for-resource", "--resource-arn", job_arn("cli")) == {"tags": held["tags"]} == {"tags": [{"tagKey": "a", "tagValue": "b"}]}
    answer(*create("second", import_mode="INCREMENTAL"))
    assert answer("tag-resource", "--resource-arn", job_arn("cli"), "--tags", "tagKey=c,tagValue=d") is None
    assert answer("untag-resource", "--resource-arn", job_arn("cli"), "--tag-keys", "a") is None
    assert answer("list-tags-for-resource", "--resource-arn", job_arn("cli"))["tags"] == [{"tagKey": "c", "tagValue": "d"}]
    # The CLI's own paginator, and where it left off.
    pages = answer("list-dataset-import-jobs", "--page-size", "1")
    assert [job["jobName"] for job in pages["datasetImportJobs"]] == ["cli", "second"]
    first = answer("list-dataset-import-jobs", "--max-items", "1")
    rest = answer("list-dataset-import-jobs", "--starting-token", first["NextToken"])
    assert [j["jobName"] for j in first["datasetImportJobs"] + rest["datasetImportJobs"]] == ["cli", "second"]
    dataset = answer("describe-dataset", "--dataset-arn", DATASET)["dataset"]
    assert dataset["datasetArn"] in [d["datasetArn"] for d in answer("list-datasets", "--page-size", "1")["datasets"]]
    schema = answer("describe-schema", "--schema-arn", dataset["schemaArn"])["schema"]
    assert schema["schemaArn"] in [s["schemaArn"] for s in answer("list-schemas")["schemas"]]


def errors():
    nowhere, schema = DATASET + "X", DATASET.replace("dataset/shop/", "schema/")
    refused("ValidationException", "at 'jobName' failed to satisfy constraint", *create("-"))
    refused("SerializationException", "NUMBER_VALUE can not be converted to a String", "create-dataset-import-job", "--cli-input-json", json.dumps({"jobName": 7, "datasetArn": DATASET, "dataSource": {}}))
    refused("InvalidInputException", "reserved", *create("a"), "--tags", "tagKey=aws:x,tagValue=")
    refused("InvalidInputException", "Duplicate", *create("a"), "--tags", "tagKey=a,tagValue=1", "tagKey=a,tagValue=2")
    refused("InvalidInputException", LOCKED, *create("a", data_source="dataLocation=s3://locked/data.csv"))
    refused("InvalidInputException", "needs an earlier", *create("a", dataset_arn=DATASET.replace("INTER", "INTER2"), import_mode="INCREMENTAL"))
    refused("AccessDeniedException", "Cross-account pass role is not allowed.", *create("a", role_arn=ROLE.replace(ACCOUNT, "444455556666")))
    refused("InvalidInputException", "Invalid Data location.", "create-dataset-import-job", "--job-name", "a", "--dataset-arn", DATASET, "--data-source", "{}")
    refused("AccessDeniedException", "iam:PassRole", *create("a", role_arn=REFUSED_ROLE))
    refused("AccessDeniedException", "not authorized", *create("a", dataset_arn=FOREIGN))
    refused("ResourceNotFoundException", nowhere, *create("a", dataset_arn=nowhere))
    many = [f"tagKey={n},tagValue=" for n in range(51)]
    refused("TooManyTagsException", "50", *create("a"), "--tags", *many)
    control("POST", "datasets/status", {"arn": DATASET, "status": "DELETE PENDING"})
    refused("ResourceInUseException", "DELETE PENDING", *create("a"))
    control("POST", "datasets/status", {"arn": DATASET, "status": "ACTIVE"})
    control("POST", "holds", {"name": "held"})
    for number in range(5):
        answer(*create(f"held-{number}"))
    refused("LimitExceededException", "More than 5 resources with PENDING or IN_PROGRESS status.", *create("a"))
    control("DELETE", "holds", {"name": "held"})
    refused("InvalidInputException", "", "describe-dataset-import-job", "--dataset-import-job-arn", DATASET)
    refused("ResourceNotFoundException", "", "describe-dataset-import-job", "--dataset-import-job-arn", job_arn("a"))
    refused("InvalidInputException", "", "list-dataset-import-jobs", "--dataset-arn", job_arn("cli"))
    refused("InvalidInputException", "", "describe-dataset", "--dataset-arn", schema)
    refused("ResourceNotFoundException", "", "describe-dataset", "--dataset-arn", nowhere)
    refused("InvalidInputException", "", "list-datasets", "--dataset-group-arn", DATASET)
    refused("InvalidInputException", "", "describe-schema", "--schema-arn", DATASET)
    refused("ResourceNotFoundException", "", "describe-schema", "--schema-arn", schema)
    for command in ("list-dataset-import-jobs", "list-datasets", "list-schemas"):
        refused("InvalidNextTokenException", "", command, "--no-paginate", "--next-token", "made-up")
        refused("ValidationException", "less than or equal to 100", command, "--no-paginate", "--max-results", "101")
    tag, untag = ["--tags", "tagKey=a,tagValue="], ["--tag-keys", "a"]
    for command, more in (("tag-resource", tag), ("untag-resource", untag), ("list-tags-for-resource", [])):
        refused("ResourceNotFoundException", nowhere, command, "--resource-arn", nowhere, *more)
        refused("InvalidInputException", "region", command, "--resource-arn", DATASET.replace("eu-west-1", "us-east-1"), *more)
        for code in ("ResourceInUseException", "LimitExceededException") if command == "tag-resource" else ("ResourceInUseException",):
            control("POST", "faults", {"operation": command.title().replace("-", ""), "action": {"error": {"code": code}}})
            refused(code, "", command, "--resource-arn", DATASET, *more)
    refused("TooManyTagsException", "50", "tag-resource", "--resource-arn", DATASET, "--tags", *many)
    refused("TooManyTagKeysException", "50", "untag-resource", "--resource-arn", DATASET, "--tag-keys", *map(str, range(51)))
    refused("UnknownOperationException", "", "list-solutions")


def failures():
    """Every import that fails, with its whole failureReason."""
    for name, (location, reason) in FAILURES.items():
        answer(*create(f"fails-{name}", data_source=f"dataLocation={location}"))
        describe = ["describe-dataset-import-job", "--dataset-import-job-arn", job_arn(f"fails-{name}")]
        job = eventually(f"{name} ends", lambda: (found := answer(*describe)["datasetImportJob"])["status"] in ("ACTIVE", "CREATE FAILED") and found)
        assert (job["status"], job["failureReason"]) == ("CREATE FAILED", reason), job


def strangers():
    """Whoever signs wrongly, not at all, or with what is over."""
    global DRIVER
    temporary = {"AWS_ACCESS_KEY_ID": "ASIALOCAL", "AWS_SECRET_ACCESS_KEY": "temporary"}
    for changed, code, words in (
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "InvalidSignatureException", "does not match"),
        ({"AWS_ACCESS_KEY_ID": "AKIAOTHER"}, "UnrecognizedClientException", "is invalid"),
        ({"AWS_ACCESS_KEY_ID": "AKIA/OTHER"}, "IncompleteSignatureException", "Credential must have exactly 5 slash-delimited elements"),
        ({"AWS_SESSION_TOKEN": "uncalled-for"}, "UnrecognizedClientException", "is invalid"),
        (temporary, "UnrecognizedClientException", "is invalid"),
        (temporary | {"AWS_SESSION_TOKEN": "another"}, "UnrecognizedClientException", "is invalid"),
        ({"AWS_ACCESS_KEY_ID": "ASIAEXPIRED", "AWS_SECRET_ACCESS_KEY": "temporary", "AWS_SESSION_TOKEN": "old"}, "ExpiredTokenException", "is expired"),
        (temporary | {"AWS_SESSION_TOKEN": "session"}, None, None),
    ):
        os.environ.update(changed)
        DRIVER = driver()
        refused(code, words, "list-schemas") if code else answer("list-schemas")
        for name in changed:
            os.environ.pop(name)
        os.environ.update(ENVIRONMENT)
    DRIVER = driver()
    refused("MissingAuthenticationTokenException", "Missing Authentication Token", "list-schemas", "--no-sign-request")
    # The option stays with the session.
    DRIVER = driver()
    modify = SigV4Auth._modify_request_before_signing
    for minutes, words in ((-6, "Signature expired"), (6, "Signature not yet current"), (-4, None), (4, None)):

        def skewed(self, request, minutes=minutes):
            request.context["timestamp"] = (datetime.now(timezone.utc) + timedelta(minutes=minutes)).strftime("%Y%m%dT%H%M%SZ")
            modify(self, request)

        SigV4Auth._modify_request_before_signing = skewed
        try:
            refused("InvalidSignatureException", words, "list-schemas") if words else answer("list-schemas")
        finally:
            SigV4Auth._modify_request_before_signing = modify


def retries():
    """The CLI's own retries ride out throttling and a reset."""
    global DRIVER
    os.environ.update({"AWS_MAX_ATTEMPTS": "3", "AWS_RETRY_MODE": "standard"})
    DRIVER = driver()
    for action in ({"error": {"code": "ThrottlingException"}}, "resetBefore"):
        control("POST", "faults", {"operation": "ListSchemas", "action": action})
    assert answer("list-schemas")["schemas"]
    assert json.loads(control("GET", "faults")) == []


if __name__ == "__main__":
    program()
    reads()
    errors()
    failures()
    strangers()
    retries()
    print("aws: every operation and error as expected")
