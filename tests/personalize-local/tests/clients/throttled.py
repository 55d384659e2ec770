"""boto3 and the AWS CLI are throttled by the seed's rate limit, and recover with their retries.

Usage: throttled.py THREE_REQUESTS_ENDPOINT SLOW_ENDPOINT

The first endpoint admits three requests per region, the second one request every few seconds.
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

THREE_REQUESTS, SLOW = sys.argv[1:3]
REGIONS = {"boto3": "eu-west-1", "cli": "us-east-1"}


def boto3_client(url, attempts):
    config = Config(retries={"mode": "standard", "total_max_attempts": attempts})
    keys = {"aws_access_key_id": "AKIALOCAL", "aws_secret_access_key": "local-secret"}
    return boto3.client("personalize", region_name=REGIONS["boto3"], endpoint_url=url, config=config, **keys)


def list_schemas_with_cli(url, attempts):
    """Returns exit status, standard error and number of retries. The CLI's entry point runs in this process."""
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


def fourth_request_is_throttled():
    personalize = boto3_client(THREE_REQUESTS, 1)
    for _ in range(3):
        personalize.list_schemas()
    try:
        personalize.list_schemas()
        raise AssertionError("the fourth request was not throttled")
    except ClientError as error:
        assert error.response["Error"] == {"Code": "ThrottlingException", "Message": "Rate exceeded"}, error.response
    # The limit is per region.
    for _ in range(3):
        assert list_schemas_with_cli(THREE_REQUESTS, 1)[0] == 0
    status, stderr, _ = list_schemas_with_cli(THREE_REQUESTS, 1)
    assert status != 0 and "(ThrottlingException) when calling the ListSchemas operation" in stderr and "Rate exceeded" in stderr, stderr


def throttled_requests_are_retried():
    """A throttled call succeeds after retries. On a slow machine the first calls may not be throttled."""
    personalize = boto3_client(SLOW, 10)
    eventually("boto3 is throttled and succeeds", lambda: personalize.list_schemas()["ResponseMetadata"]["RetryAttempts"] > 0)

    def cli_retries():
        status, stderr, retries = list_schemas_with_cli(SLOW, 10)
        assert status == 0, stderr
        return retries > 0

    eventually("the CLI is throttled and succeeds", cli_retries)


if __name__ == "__main__":
    fourth_request_is_throttled()
    throttled_requests_are_retried()
    print("boto3 and aws: throttled requests succeeded after retries")
