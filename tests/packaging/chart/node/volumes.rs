//! What a pod's specification refers to: volumes and environment, fetched and laid out in files.

use super::kubelet::Failure;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Pod, Secret, ServiceAccount, VolumeProjection};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A pod, and what its node knows of it.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) pod: Pod,
    pub(super) address: String,
    /// Host and port of the API server.
    pub(super) server: (String, u16),
    /// Where its files go.
    pub(super) dir: PathBuf,
}

/// Fields of a pod's specification that are played, or mean nothing to one process on one node.
const OF_PODS: &str = "containers volumes serviceAccountName serviceAccount automountServiceAccountToken \
    terminationGracePeriodSeconds enableServiceLinks securityContext nodeSelector nodeName restartPolicy dnsPolicy \
    schedulerName tolerations priority preemptionPolicy imagePullSecrets affinity topologySpreadConstraints";
const OF_CONTAINERS: &str = "name image args command env envFrom ports livenessProbe readinessProbe resources \
    securityContext volumeMounts imagePullPolicy terminationMessagePath terminationMessagePolicy";

pub(super) fn refuse_what_is_not_played(pod: &Pod) -> Result<(), Failure> {
    let spec = serde_json::to_value(&pod.spec)?;
    let containers = spec["containers"].as_array().cloned().unwrap_or_default();
    let fields = |value: &serde_json::Value| value.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>());
    let of_pod = fields(&spec).unwrap_or_default().into_iter().map(|field| (field, OF_PODS));
    let of_container =
        containers.iter().flat_map(|c| fields(c).unwrap_or_default()).map(|field| (field, OF_CONTAINERS));
    match of_pod.chain(of_container).find(|(field, known)| !known.split_whitespace().any(|k| k == field)) {
        Some((field, _)) => Err(format!("the node of these tests does not play {field}").into()),
        None if containers.len() != 1 => Err("the node of these tests plays pods of one container".into()),
        None => Ok(()),
    }
}

impl Context {
    fn namespace(&self) -> String {
        self.pod.namespace().unwrap_or_default()
    }

    fn field(&self, path: &str) -> Result<String, Failure> {
        let spec = self.pod.spec.clone().unwrap_or_default();
        Ok(match path {
            "metadata.name" => self.pod.name_any(),
            "metadata.namespace" => self.namespace(),
            "metadata.uid" => self.pod.uid().unwrap_or_default(),
            "spec.nodeName" => spec.node_name.unwrap_or_default(),
            "spec.serviceAccountName" => spec.service_account_name.unwrap_or_default(),
            "status.podIP" => self.address.clone(),
            _ => return Err(format!("the node of these tests does not know the field {path}").into()),
        })
    }

    async fn secret(&self, name: &str, optional: bool) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace());
        let found = api.get_opt(name).await?.map(|s| s.data.unwrap_or_default());
        let found = found.map(|data| data.into_iter().map(|(key, value)| (key, value.0)).collect());
        found.or_else(|| optional.then(BTreeMap::new)).ok_or_else(|| format!("secret {name:?} not found").into())
    }

    async fn config_map(&self, name: &str, optional: bool) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace());
        let found = api.get_opt(name).await?.map(|c| c.data.unwrap_or_default());
        let found = found.map(|data| data.into_iter().map(|(key, value)| (key, value.into_bytes())).collect());
        found.or_else(|| optional.then(BTreeMap::new)).ok_or_else(|| format!("configmap {name:?} not found").into())
    }

    /// The environment of the pod's container.
    pub(super) async fn environment(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut all = BTreeMap::from([
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("HOSTNAME".to_owned(), self.pod.name_any()),
            ("HOME".to_owned(), "/".to_owned()),
            ("KUBERNETES_SERVICE_HOST".to_owned(), self.server.0.clone()),
            ("KUBERNETES_SERVICE_PORT".to_owned(), self.server.1.to_string()),
        ]);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes);
        let container = self.pod.spec.clone().unwrap_or_default().containers.remove(0);
        for source in container.env_from.unwrap_or_default() {
            let prefix = source.prefix.unwrap_or_default();
            let mut found = BTreeMap::new();
            if let Some(reference) = source.secret_ref {
                found.append(&mut self.secret(&reference.name, reference.optional == Some(true)).await?);
            }
            if let Some(reference) = source.config_map_ref {
                found.append(&mut self.config_map(&reference.name, reference.optional == Some(true)).await?);
            }
            for (key, value) in found {
                all.insert(format!("{prefix}{key}"), text(value)?);
            }
        }
        for variable in container.env.unwrap_or_default() {
            let Some(source) = variable.value_from else {
                all.insert(variable.name, variable.value.unwrap_or_default());
                continue;
            };
            let mut found = None;
            if let Some(field) = source.field_ref {
                found = Some(self.field(&field.field_path)?);
            }
            if let Some(key) = source.secret_key_ref {
                let optional = key.optional == Some(true);
                found = self.secret(&key.name, optional).await?.remove(&key.key).map(text).transpose()?;
            }
            if let Some(key) = source.config_map_key_ref {
                let optional = key.optional == Some(true);
                found = self.config_map(&key.name, optional).await?.remove(&key.key).map(text).transpose()?;
            }
            let value = found.ok_or_else(|| format!("{} has no value", variable.name))?;
            all.insert(variable.name, value);
        }
        Ok(all)
    }

    /// Lays the pod's volumes out; tells for each of the container's mounts the source, the target and
    /// whether it is read-only.
    pub(super) async fn mounts(&self) -> Result<Vec<(PathBuf, String, bool)>, Failure> {
        let spec = self.pod.spec.clone().unwrap_or_default();
        let mut sources = BTreeMap::new();
        for volume in spec.volumes.unwrap_or_default() {
            let dir = self.dir.join("volumes").join(&volume.name);
            fs::create_dir_all(&dir)?;
            let mut writable = false;
            if let Some(projected) = &volume.projected {
                for source in projected.sources.iter().flatten() {
                    self.project(source, &dir).await?;
                }
            } else if let Some(secret) = &volume.secret {
                let name = secret.secret_name.clone().unwrap_or_default();
                write(&dir, &self.secret(&name, secret.optional == Some(true)).await?, secret.items.as_deref())?;
            } else if let Some(map) = &volume.config_map {
                write(&dir, &self.config_map(&map.name, map.optional == Some(true)).await?, map.items.as_deref())?;
            } else if volume.empty_dir.is_some() {
                writable = true;
            } else {
                return Err(format!("the node of these tests does not play the volume {}", volume.name).into());
            }
            sources.insert(volume.name, (dir, writable));
        }
        let mounts = spec.containers.into_iter().flat_map(|c| c.volume_mounts.unwrap_or_default());
        mounts
            .map(|mount| {
                let (dir, writable) = sources.get(&mount.name).ok_or("a mount without its volume")?;
                Ok((dir.clone(), mount.mount_path, !writable || mount.read_only == Some(true)))
            })
            .collect()
    }

    async fn project(&self, source: &VolumeProjection, dir: &Path) -> Result<(), Failure> {
        if let Some(token) = &source.service_account_token {
            let name = self.field("spec.serviceAccountName")?;
            let pod = BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(self.pod.name_any()),
                uid: self.pod.uid(),
            };
            let spec = TokenRequestSpec {
                audiences: token.audience.clone().into_iter().collect(),
                expiration_seconds: token.expiration_seconds,
                bound_object_ref: Some(pod),
            };
            let request = TokenRequest { spec, ..TokenRequest::default() };
            let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace());
            let granted = accounts.create_token_request(&name, &PostParams::default(), &request).await?;
            fs::write(dir.join(&token.path), granted.status.ok_or("no token was granted")?.token)?;
        }
        if let Some(map) = &source.config_map {
            write(dir, &self.config_map(&map.name, map.optional == Some(true)).await?, map.items.as_deref())?;
        }
        if let Some(secret) = &source.secret {
            write(dir, &self.secret(&secret.name, secret.optional == Some(true)).await?, secret.items.as_deref())?;
        }
        for item in source.downward_api.iter().flat_map(|d| d.items.iter().flatten()) {
            let field = item.field_ref.as_ref().ok_or("a downward API item without a field")?;
            fs::write(dir.join(&item.path), self.field(&field.field_path)?)?;
        }
        Ok(())
    }
}

fn write(dir: &Path, data: &BTreeMap<String, Vec<u8>>, items: Option<&[KeyToPath]>) -> Result<(), Failure> {
    match items {
        None => data.iter().try_for_each(|(key, value)| fs::write(dir.join(key), value))?,
        Some(items) => {
            for item in items {
                let value = data.get(&item.key).ok_or_else(|| format!("there is no key {:?}", item.key))?;
                fs::write(dir.join(&item.path), value)?;
            }
        }
    }
    Ok(())
}
