//! The jobs of deleted resources.

use super::*;
use crate::controller::namespace_policy::ASSUME_ROLE_ARN;
use crate::queue::DeletedJob;
use kube::api::DeleteParams;
use kube::core::PartialObjectMeta;

#[tokio::test]
async fn job_of_a_deleted_resource_that_may_not_be_polled_any_more_keeps_no_quota() {
    use ErrorKind::{AccessDenied, Credentials, Indeterminate, InvalidInput, NotFound, Throttled};
    let cases = [(AccessDenied, true), (Credentials, true), (InvalidInput, true), (NotFound, true)];
    for (kind, is_freed) in cases.into_iter().chain([(Throttled, false), (Indeterminate, false)]) {
        let describe_error = testing::service_error(kind);
        let lease = LeaseHold::forever();
        let (context, _) = context(Service { describe_error, ..service(lease.clone()) }, lease);
        context.observe(&running("shop"));
        context.forget("uid");
        assert!(context.queue().take_freed().is_empty(), "its job may run");
        let due = context.queue().deleted_jobs(context.clock.now());
        assert_eq!(due.len(), 1);
        context.poll_deleted_job(due[0].clone()).await;
        assert_eq!(!context.queue().take_freed().is_empty(), is_freed, "{kind:?}");
    }
}

fn role(name: &str) -> String {
    format!("arn:aws:iam::123456789012:role/{name}")
}

/// The Namespace `closed`, which names this role.
fn closed(name: &str) -> PartialObjectMeta<Namespace> {
    let annotations = json!({ASSUME_ROLE_ARN: role(name)});
    let namespace = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "closed", "annotations": annotations}
    });
    serde_json::from_value(namespace).unwrap()
}

/// A context of a leader whose queue follows the job of a deleted resource in the namespace `closed`, its service,
/// and that job. The API server has this object, or none.
fn follow(object: &impl serde::Serialize) -> (Context<Service>, Arc<Service>, DeletedJob) {
    let lease = LeaseHold::forever();
    let describe_error = testing::service_error(ErrorKind::Throttled);
    let service = Arc::new(Service { describe_error, ..service(lease.clone()) });
    let (mut context, _) = context_with(Arc::clone(&service), lease, serde_json::to_value(object).unwrap());
    context.namespaces = Namespaces::new(&[None]);
    context.observe(&running("closed"));
    context.forget("uid");
    let job = context.queue().deleted_jobs(context.clock.now()).remove(0);
    (context, service, job)
}

/// Polls the deleted job. Returns under which role.
async fn poll((context, service, job): &(Context<Service>, Arc<Service>, DeletedJob)) -> CallerRole {
    context.forget_namespaces();
    context.poll_deleted_job(job.clone()).await;
    service.roles.lock().unwrap().pop().unwrap()
}

#[tokio::test]
async fn job_of_a_deleted_resource_is_polled_under_the_role_of_its_deleted_namespace() {
    let list = |listed: Option<PartialObjectMeta<Namespace>>| {
        [Event::Init].into_iter().chain(listed.map(Event::InitApply)).chain([Event::InitDone])
    };
    for is_seen in [true, false] {
        let following = follow(&());
        let context = &following.0;
        list(Some(closed("M"))).for_each(|event| context.namespaces.observe(Some(event)));
        assert_eq!(poll(&following).await, CallerRole::Named(role("M")));
        if is_seen {
            context.namespaces.observe(Some(Event::Delete(closed("M"))));
        } else {
            context.namespaces.observe(None);
            assert_eq!(poll(&following).await, CallerRole::Named(role("M")), "the watch has failed");
            list(None).for_each(|event| context.namespaces.observe(Some(event)));
        }
        assert_eq!(poll(&following).await, CallerRole::Named(role("M")), "{is_seen}");
        context.namespaces.observe(Some(Event::Apply(closed("N"))));
        assert_eq!(poll(&following).await, CallerRole::Named(role("N")), "it was created again");
        context.namespaces.observe(Some(Event::Delete(closed("N"))));
        assert_eq!(poll(&following).await, CallerRole::Named(role("N")));
        context.queue().deleted_job_polled("uid", Some(false), context.clock.now());
        context.queue().take_freed();
        assert!(context.namespaces.last_known("closed").is_some());
        context.forget_namespaces();
        assert_eq!(context.namespaces.last_known("closed"), None, "no job needs it");
    }
}

#[tokio::test]
async fn role_of_a_namespace_that_was_only_read_is_remembered_after_its_deletion() {
    let following = follow(&closed("M"));
    let context = &following.0;
    context.namespaces.observe(None);
    assert_eq!(poll(&following).await, CallerRole::Named(role("M")));
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(context.client.clone());
    assert!(namespaces.delete("closed", &DeleteParams::default()).await.is_ok());
    assert_eq!(poll(&following).await, CallerRole::Named(role("M")));
    let following = follow(&());
    following.0.namespaces.observe(None);
    assert_eq!(poll(&following).await, CallerRole::OfAccount, "it was never known");
}
