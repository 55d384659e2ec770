"""A first import with boto3; README.md has the four lines before it."""

import time

import boto3

personalize = boto3.client("personalize")
job = personalize.create_dataset_import_job(
    jobName=f"first-{time.time():.0f}",
    datasetArn="arn:aws:personalize:eu-west-1:111122223333:dataset/shop/INTERACTIONS",
    dataSource={"dataLocation": "s3://bucket/i.csv"},
    roleArn="arn:aws:iam::111122223333:role/import",
)
shown = None
while shown not in ("ACTIVE", "CREATE FAILED"):
    answer = personalize.describe_dataset_import_job(datasetImportJobArn=job["datasetImportJobArn"])["datasetImportJob"]
    if answer["status"] != shown:
        shown = answer["status"]
        print(shown, answer.get("failureReason", ""))
    time.sleep(0.2)
