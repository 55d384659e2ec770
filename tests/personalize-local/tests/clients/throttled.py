"""boto3 and the AWS CLI are throttled by the stand-in's own rule, and ride it out by their own retries.

usage: throttled.py ENDPOINT-THAT-LETS-THREE-REQUESTS-PASS ENDPOINT-THAT-LETS-ONE-PASS-NOW-AND-THEN
"""

import contextlib
import io
import os
import sys

import boto3
from awscli.clidriver import create_clidriver
from botocore.config import Config
from botocore.exceptions import ClientError

from common import eventually

TIGHT, SLOW = sys.argv[1:3]
REGIONS = {"boto3": "eu-west-1", "cli": "us-east-1"}


def boto(url, attempts):
    config = Config(retries={"mode": "standard", "total_max_attempts": attempts})
    keys = {"aws_access_key_id": "AKIALOCAL", "aws_secret_access_key": "local-secret"}
    return boto3.client("personalize", region_name=REGIONS["boto3"], endpoint_url=url, config=config, **keys)


def cli(url, attempts):
    """Exit status, standard error, and how often it tried again. The CLI's own entry point runs in this process."""
    settings = {"AWS_ACCESS_KEY_ID": "AKIALOCAL", "AWS_SECRET_ACCESS_KEY": "local-secret", "AWS_DEFAULT_REGION": REGIONS["cli"], "AWS_ENDPOINT_URL_PERSONALIZE": url}
    settings |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_RETRY_MODE": "standard", "AWS_MAX_ATTEMPTS": str(attempts)}
    os.environ.update(settings)
    driver, retries = create_clidriver(), []
    driver.session.register("after-call.personalize.*", lambda parsed, **_: retries.append(parsed["ResponseMetadata"]["RetryAttempts"]))
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = driver.main(["personalize", "list-schemas"])
    err.flush()
    return status, err.buffer.getvalue().decode(), sum(retries)


def tight():
    personalize = boto(TIGHT, 1)
    for _ in range(3):
        personalize.list_schemas()
    try:
        personalize.list_schemas()
        raise AssertionError("the fourth request passes")
    except ClientError as error:
        assert error.response["Error"] == {"Code": "ThrottlingException", "Message": "Rate exceeded"}, error.response
    # Another region has a rate of its own.
    for _ in range(3):
        assert cli(TIGHT, 1)[0] == 0
    status, told, _ = cli(TIGHT, 1)
    assert status != 0 and "(ThrottlingException) when calling the ListSchemas operation" in told and "Rate exceeded" in told, told


def patience():
    """A call is throttled and goes well in the end. A slow machine may need several calls to meet one."""
    personalize = boto(SLOW, 10)
    eventually("boto3 is throttled and goes on", lambda: personalize.list_schemas()["ResponseMetadata"]["RetryAttempts"] > 0)

    def goes_on():
        status, told, retries = cli(SLOW, 10)
        assert status == 0, told
        return retries > 0

    eventually("the CLI is throttled and goes on", goes_on)


if __name__ == "__main__":
    tight()
    patience()
    print("boto3 and aws: throttled, and in the end not")
