//! A control plane with imports, as the operator finds them at its start.

use crate::report::root;
use control_plane::ControlPlane;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use personalize_operator::api::conditions::{self, Reason};
use personalize_operator::api::{DatasetImportJob, DatasetImportJobStatus};
use personalize_operator::import::{ImportRequest, MANAGER};
use serde_json::json;
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use tokio::runtime::Runtime;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// How many datasets the imports go into, in turn.
pub(crate) const DATASETS: u64 = 100;

/// A control plane with the CRD.
pub(crate) struct Cluster {
    control_plane: ControlPlane,
    client: Client,
}

impl Cluster {
    pub(crate) fn start(runtime: &Runtime) -> Outcome<Self> {
        let control_plane = ControlPlane::temporary()?;
        let kubeconfig = Kubeconfig::read_from(control_plane.kubeconfig())?;
        let client = runtime.block_on(async {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            Outcome::Ok(Client::try_from(config)?)
        })?;
        let cluster = Self { control_plane, client };
        let crds = root().join("crds").display().to_string();
        cluster.kubectl(&["apply", "--server-side", "-f", &crds])?;
        cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])?;
        Ok(cluster)
    }

    fn kubectl(&self, args: &[&str]) -> Outcome<()> {
        let output = self.control_plane.kubectl(args, None)?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
    }

    /// Creates a namespace. Returns the API of its imports.
    pub(crate) fn create_namespace(&self, name: &str) -> Outcome<Api<DatasetImportJob>> {
        self.kubectl(&["create", "namespace", name])?;
        Ok(Api::namespaced(self.client.clone(), name))
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.control_plane.kubeconfig()
    }
}

/// An import; its number is its name.
pub(crate) fn manifest(i: u64, suspend: bool) -> Result<DatasetImportJob, serde_json::Error> {
    import(i, &format!("s3://shop-data/{i}/interactions.csv"), suspend)
}

/// An import of this data.
pub(crate) fn import(i: u64, data_location: &str, suspend: bool) -> Result<DatasetImportJob, serde_json::Error> {
    serde_json::from_value(json!({
        "apiVersion": "personalize-operator.io/v1alpha1",
        "kind": "DatasetImportJob",
        "metadata": { "name": name(i) },
        "spec": {
            "datasetArn": dataset(i % DATASETS),
            "dataSource": { "dataLocation": data_location },
            "roleArn": "arn:aws:iam::123456789012:role/PersonalizeRead",
            "suspend": suspend,
        },
    }))
}

pub(crate) fn dataset(i: u64) -> String {
    format!("arn:aws:personalize:eu-west-1:123456789012:dataset/group{i}/INTERACTIONS")
}

pub(crate) fn name(i: u64) -> String {
    format!("import-{i:06}")
}

/// The status that the operator writes when an import has succeeded.
fn succeeded(resource: &DatasetImportJob, namespace: &str, i: u64) -> Outcome<DatasetImportJobStatus> {
    let created = Time(Timestamp::from_second(1_700_000_000 + i64::try_from(i)? * 60)?);
    let request = ImportRequest::new(namespace, &name(i), &resource.spec)?;
    let mut status = DatasetImportJobStatus {
        status: Some("ACTIVE".into()),
        job_name: Some(request.job_name(1)),
        dataset_import_job_arn: Some(request.job_arn(1).0),
        attempts: Some(1),
        creation_date_time: Some(created.clone()),
        last_updated_date_time: Some(created.clone()),
        start_time: Some(created.clone()),
        completion_time: Some(created.clone()),
        ..DatasetImportJobStatus::default()
    };
    conditions::set(&mut status, 1, Reason::ImportSucceeded, "the data is in the dataset", created.0);
    Ok(status)
}

/// Creates finished imports, with many requests at once.
pub(crate) async fn create(api: &Api<DatasetImportJob>, namespace: &str, count: u64) -> Outcome<()> {
    let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    let one = |i: u64| {
        let params = &params;
        async move {
            let mut resource = api.create(params, &manifest(i, false)?).await?;
            resource.status = Some(succeeded(&resource, namespace, i)?);
            resource.metadata.managed_fields = None;
            api.replace_status(&name(i), params, &resource).await?;
            Outcome::Ok(())
        }
    };
    let mut created = futures::stream::iter(0..count).map(one).buffer_unordered(32);
    for i in 0..count {
        created.try_next().await?;
        if i % 10_000 == 9_999 {
            writeln!(std::io::stderr(), "{} of {count} imports are created", i + 1)?;
        }
    }
    Ok(())
}

/// Creates imports that wait for their first submission.
pub(crate) async fn create_waiting(api: &Api<DatasetImportJob>, from: u64, count: u64) -> Outcome<()> {
    let one = |i: u64| async move {
        api.create(&PostParams::default(), &manifest(i, false)?).await?;
        Outcome::Ok(())
    };
    futures::stream::iter(from..from + count).map(one).buffer_unordered(32).try_collect().await
}
