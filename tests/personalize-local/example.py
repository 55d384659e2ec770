"""Imports a file with boto3. README.md shows how to start the stand-in first."""

import time

import boto3

personalize = boto3.client("personalize")
job = personalize.create_dataset_import_job(
    jobName=f"first-{time.time():.0f}",
    datasetArn="arn:aws:personalize:eu-west-1:111122223333:dataset/shop/INTERACTIONS",
    dataSource={"dataLocation": "s3://bucket/i.csv"},
    roleArn="arn:aws:iam::111122223333:role/import",
)
status = None
while status not in ("ACTIVE", "CREATE FAILED"):
    job = personalize.describe_dataset_import_job(datasetImportJobArn=job["datasetImportJobArn"])["datasetImportJob"]
    if job["status"] != status:
        status = job["status"]
        print(status, job.get("failureReason", ""))
    time.sleep(0.2)
