"""boto3 and the AWS CLI get temporary credentials from the STS of moto through the stand-in, and sign with them."""

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
from datetime import datetime, timedelta, timezone

import boto3

from common import ACCOUNT, ENDPOINT, OTHER_DATASET, ROLE, client, control, expect_error, job

STS = boto3.client("sts", region_name="eu-west-1", endpoint_url=ENDPOINT + "/_local/sts", aws_access_key_id="AKIALOCAL", aws_secret_access_key="local-secret")
OTHER_ACCOUNT = "444455556666"
ASSUME_ROLE = {"RoleArn": f"arn:aws:iam::{OTHER_ACCOUNT}:role/importer", "RoleSessionName": "night"}


def client_with(credentials, **changes):
    keys = {"key": credentials["AccessKeyId"], "secret": credentials["SecretAccessKey"], "token": credentials["SessionToken"]}
    return client(**keys | changes)


def assumed_role():
    response = STS.assume_role(**ASSUME_ROLE)
    personalize = client_with(response["Credentials"])
    # The credentials belong to the account of the role, not to that of the caller.
    assert [d["datasetArn"] for d in personalize.list_datasets()["datasets"]] == [OTHER_DATASET]
    arn = personalize.create_dataset_import_job(**job("assumed", datasetArn=OTHER_DATASET, roleArn=ROLE.replace(ACCOUNT, OTHER_ACCOUNT)))["datasetImportJobArn"]
    assert arn.split(":")[4] == OTHER_ACCOUNT
    user_arn = response["AssumedRoleUser"]["Arn"]
    assert user_arn == f"arn:aws:sts::{OTHER_ACCOUNT}:assumed-role/importer/night"
    expect_error("AccessDeniedException", f"User: {user_arn} is not authorized", personalize.create_dataset_import_job, **job("theirs"))
    expect_error("UnrecognizedClientException", "", client_with(response["Credentials"], token=None).list_datasets)
    expect_error("UnrecognizedClientException", "", client_with(response["Credentials"], token="another").list_datasets)
    expect_error("InvalidSignatureException", "", client_with(response["Credentials"], secret="wrong").list_datasets)
    return response


def expired_credentials(response):
    """Declaring the credentials again with an earlier expiration expires them."""
    past = (datetime.now(timezone.utc) - timedelta(seconds=1)).isoformat()
    declared = {"AssumedRoleUser": response["AssumedRoleUser"], "Credentials": response["Credentials"] | {"Expiration": past}}
    assert json.loads(control("POST", "sessions", declared)) == {"account": OTHER_ACCOUNT}
    expect_error("ExpiredTokenException", "expired", client_with(response["Credentials"]).list_datasets)
    try:
        control("POST", "sessions", {"Credentials": declared["Credentials"]})
        raise AssertionError("credentials without an account were accepted")
    except urllib.error.HTTPError as error:
        assert error.code == 400 and b"has no account" in error.read()


def session_token():
    """The response of GetSessionToken has no account, so the account is that of the caller."""
    personalize = client_with(STS.get_session_token()["Credentials"])
    assert f":{ACCOUNT}:" in personalize.list_datasets()["datasets"][0]["datasetArn"]
    # The identity is that of the caller.
    expect_error("AccessDeniedException", f"User: arn:aws:iam::{ACCOUNT}:user/AKIALOCAL is not authorized", personalize.create_dataset_import_job, **job("theirs", datasetArn=OTHER_DATASET))


def web_identity():
    """AssumeRoleWithWebIdentity is not signed. Pods use it with the token of their service account."""
    response = STS.assume_role_with_web_identity(RoleArn=ROLE, RoleSessionName="pod", WebIdentityToken="token")
    assert f":{ACCOUNT}:" in client_with(response["Credentials"]).list_datasets()["datasets"][0]["datasetArn"]


def cli():
    """The AWS CLI assumes the role of its profile automatically."""
    with tempfile.TemporaryDirectory() as home:
        with open(home + "/config", "w") as config:
            config.write(f"[profile assumed]\nregion = eu-west-1\nrole_arn = {ASSUME_ROLE['RoleArn']}\nsource_profile = source\n")
            config.write("[profile source]\naws_access_key_id = AKIALOCAL\naws_secret_access_key = local-secret\n")
        environment = {"AWS_CONFIG_FILE": home + "/config", "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "HOME": home, "AWS_ENDPOINT_URL_STS": ENDPOINT + "/_local/sts", "AWS_ENDPOINT_URL_PERSONALIZE": ENDPOINT}
        aws = [sys.executable, "-m", "awscli", "--profile", "assumed", "personalize", "list-datasets"]
        response = json.loads(subprocess.check_output(aws, env=os.environ | environment))
        assert [d["datasetArn"] for d in response["datasets"]] == [OTHER_DATASET], response


if __name__ == "__main__":
    expired_credentials(assumed_role())
    session_token()
    web_identity()
    cli()
    print("STS: all temporary credentials belong to the expected account")
