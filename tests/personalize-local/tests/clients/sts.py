"""Temporary credentials: boto3 and the AWS CLI get them from moto's STS through the stand-in, and sign with them."""

import json
import os
import subprocess
import sys
import tempfile
import urllib.error
from datetime import datetime, timedelta, timezone

import boto3

from common import ACCOUNT, ENDPOINT, FOREIGN, ROLE, client, control, job, refused

STS = boto3.client("sts", region_name="eu-west-1", endpoint_url=ENDPOINT + "/_local/sts", aws_access_key_id="AKIALOCAL", aws_secret_access_key="local-secret")
OTHERS = "444455556666"
ASSUME = {"RoleArn": f"arn:aws:iam::{OTHERS}:role/importer", "RoleSessionName": "night"}


def signed(credentials, **changed):
    keys = {"key": credentials["AccessKeyId"], "secret": credentials["SecretAccessKey"], "token": credentials["SessionToken"]}
    return client(**keys | changed)


def assumed():
    answer = STS.assume_role(**ASSUME)
    personalize = signed(answer["Credentials"])
    # The account is that of the role, not that of the key which asked.
    assert [d["datasetArn"] for d in personalize.list_datasets()["datasets"]] == [FOREIGN]
    arn = personalize.create_dataset_import_job(**job("assumed", datasetArn=FOREIGN, roleArn=ROLE.replace(ACCOUNT, OTHERS)))["datasetImportJobArn"]
    assert arn.split(":")[4] == OTHERS
    who = answer["AssumedRoleUser"]["Arn"]
    assert who == f"arn:aws:sts::{OTHERS}:assumed-role/importer/night"
    refused("AccessDeniedException", f"User: {who} is not authorized", personalize.create_dataset_import_job, **job("theirs"))
    refused("UnrecognizedClientException", "", signed(answer["Credentials"], token=None).list_datasets)
    refused("UnrecognizedClientException", "", signed(answer["Credentials"], token="another").list_datasets)
    refused("InvalidSignatureException", "", signed(answer["Credentials"], secret="wrong").list_datasets)
    return answer


def expired(answer):
    """The end of credentials can be brought forward by declaring them again, as STS's answer or its JSON has them."""
    past = (datetime.now(timezone.utc) - timedelta(seconds=1)).isoformat()
    declared = {"AssumedRoleUser": answer["AssumedRoleUser"], "Credentials": answer["Credentials"] | {"Expiration": past}}
    assert json.loads(control("POST", "sessions", declared)) == {"account": OTHERS}
    refused("ExpiredTokenException", "expired", signed(answer["Credentials"]).list_datasets)
    try:
        control("POST", "sessions", {"Credentials": declared["Credentials"]})
        raise AssertionError("credentials without an account are taken")
    except urllib.error.HTTPError as error:
        assert error.code == 400 and b"names no account" in error.read()


def session_token():
    """GetSessionToken's answer names no account: it is that of the key which asked."""
    personalize = signed(STS.get_session_token()["Credentials"])
    assert f":{ACCOUNT}:" in personalize.list_datasets()["datasets"][0]["datasetArn"]
    # The user stays the same, also by name.
    refused("AccessDeniedException", f"User: arn:aws:iam::{ACCOUNT}:user/AKIALOCAL is not authorized", personalize.create_dataset_import_job, **job("theirs", datasetArn=FOREIGN))


def web_identity():
    """AssumeRoleWithWebIdentity is not signed: a service account's token in a cluster."""
    answer = STS.assume_role_with_web_identity(RoleArn=ROLE, RoleSessionName="pod", WebIdentityToken="token")
    assert f":{ACCOUNT}:" in signed(answer["Credentials"]).list_datasets()["datasets"][0]["datasetArn"]


def cli():
    """The AWS CLI assumes the role of its profile by itself."""
    with tempfile.TemporaryDirectory() as home:
        with open(home + "/config", "w") as config:
            config.write(f"[profile far]\nregion = eu-west-1\nrole_arn = {ASSUME['RoleArn']}\nsource_profile = near\n")
            config.write("[profile near]\naws_access_key_id = AKIALOCAL\naws_secret_access_key = local-secret\n")
        environment = {"AWS_CONFIG_FILE": home + "/config", "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "HOME": home, "AWS_ENDPOINT_URL_STS": ENDPOINT + "/_local/sts", "AWS_ENDPOINT_URL_PERSONALIZE": ENDPOINT}
        aws = [sys.executable, "-m", "awscli", "--profile", "far", "personalize", "list-datasets"]
        answer = json.loads(subprocess.check_output(aws, env=os.environ | environment))
        assert [d["datasetArn"] for d in answer["datasets"]] == [FOREIGN], answer


if __name__ == "__main__":
    expired(assumed())
    session_token()
    web_identity()
    cli()
    print("STS: every token leads to its account")
