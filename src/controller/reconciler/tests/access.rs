//! What a change of the configuration of accounts means for imports that wait.

use super::*;
use crate::accounts::AccountsConfig;
use crate::import::Timing;
use crate::testing::service_error;

/// A resource in the API server, its context and service, and the names of the resources that are triggered.
struct Import {
    service: Arc<Service>,
    context: Context<Service>,
    triggered: Arc<Mutex<Vec<String>>>,
}

impl Import {
    /// The service does not describe the dataset. The account has these settings.
    fn new(error: ErrorKind, settings: &str) -> Self {
        let lease = LeaseHold::forever();
        let (dataset_error, read_time) = (Mutex::new(Some(service_error(error))), Duration::from_millis(50));
        let service = Arc::new(Service { dataset_error, read_time, ..service(lease.clone()) });
        let object = serde_json::to_value(resource()).unwrap();
        let (mut context, _) = context_with(Arc::clone(&service), lease, object);
        let triggered: Arc<Mutex<Vec<String>>> = Arc::default();
        let record = Arc::clone(&triggered);
        context.enqueue = Box::new(move |key| record.lock().unwrap().push(key.name.clone()));
        // On a busy machine two reconciles can be seconds apart.
        let hour = Duration::from_secs(3600);
        context.timing = Timing { backoff_min: hour, backoff_max: hour, ..timing() };
        context.accounts = Accounts::new(HashMap::new(), Some("ops/accounts".into()));
        let import = Self { service, context, triggered };
        import.configure(settings, "{}");
        import.context.observe(&resource());
        import
    }

    /// The settings of the account of the import, and of another one.
    fn configure(&self, settings: &str, others: &str) {
        self.read(&format!("accounts: {{'123456789012': {settings}, '210987654321': {others}}}"));
    }

    /// The ConfigMap has this document.
    fn read(&self, document: &str) {
        self.context.accounts.set(AccountsConfig::parse(document));
        self.context.enqueue_concerned();
    }

    async fn current(&self) -> DatasetImportJob {
        let api = Api::<DatasetImportJob>::namespaced(self.context.client.clone(), "shop");
        api.get(&resource().name_any()).await.unwrap()
    }

    /// Reconciles the resource once, as the watch delivers it. Returns its reason, and when it is reconciled again.
    async fn reconcile(&self) -> (Option<Reason>, Option<Duration>) {
        let (requeue_after, result) = self.context.reconcile_once(&self.current().await).await;
        assert!(result.is_ok(), "{result:?}");
        let current = self.current().await;
        self.context.observe(&current);
        (current.status.as_ref().and_then(Reason::of), requeue_after)
    }

    fn take_triggered(&self) -> Vec<String> {
        std::mem::take(&mut *self.triggered.lock().unwrap())
    }
}

/// What the service answers while an endpoint is wrong, and the reason for it.
const FAILURES: [(ErrorKind, Reason); 6] = [
    (ErrorKind::Indeterminate, Reason::ServiceUnavailable),
    (ErrorKind::NotFound, Reason::DatasetNotReady),
    (ErrorKind::InvalidInput, Reason::InvalidInput),
    (ErrorKind::Throttled, Reason::Throttled),
    (ErrorKind::AccessDenied, Reason::AccessDenied),
    (ErrorKind::Credentials, Reason::CredentialsRefused),
];

/// A failed import waits. After this change of the settings of its account it is reconciled at once, and calls again.
async fn is_tried_again_after(before: &str, after: &str, error: ErrorKind, expected: Reason) {
    let import = Import::new(error, before);
    let (reason, requeue_after) = import.reconcile().await;
    assert_eq!(reason, Some(expected));
    assert!(requeue_after > Some(Duration::from_secs(50)), "{expected:?}: {requeue_after:?}");
    import.reconcile().await;
    import.take_triggered();
    assert_eq!(import.service.count(DESCRIBE_DATASET), 1, "{expected:?} waits");

    import.configure(before, "{endpoint: 'https://b'}");
    assert_eq!(import.take_triggered(), [""; 0], "{expected:?}: another account is changed");
    import.reconcile().await;
    assert_eq!(import.service.count(DESCRIBE_DATASET), 1, "{expected:?} still waits");

    import.configure(after, "{endpoint: 'https://b'}");
    assert_eq!(import.take_triggered(), [resource().name_any()], "{expected:?}: {before} becomes {after}");
    *import.service.dataset_error.lock().unwrap() = None;
    import.reconcile().await;
    assert_eq!((import.service.count(DESCRIBE_DATASET), import.service.creates()), (2, 1), "{expected:?}: {after}");
}

#[tokio::test]
async fn corrected_endpoint_ends_the_backoff_of_every_reason() {
    for (error, reason) in FAILURES {
        is_tried_again_after("{endpoint: 'https://wrong'}", "{endpoint: 'https://right'}", error, reason).await;
    }
}

#[tokio::test]
async fn corrected_settings_of_an_account_without_a_role_end_the_backoff() {
    for (before, after) in [
        ("{externalId: wrong}", "{externalId: right}"),
        ("{}", "{tagNamespace: true}"),
        ("{sessionTags: {team: a}}", "{sessionTags: {team: b}}"),
        ("{regions: {eu-west-1: {sessionName: wrong}}}", "{regions: {eu-west-1: {sessionName: right}}}"),
    ] {
        is_tried_again_after(before, after, ErrorKind::Credentials, Reason::CredentialsRefused).await;
    }
}

#[tokio::test]
async fn change_while_a_reconcile_runs_is_followed_by_another_one_at_once() {
    for (error, expected) in FAILURES {
        let import = Import::new(error, "{endpoint: 'https://wrong'}");
        let change = async {
            while import.service.count(DESCRIBE_DATASET) == 0 {
                sleep(Duration::from_millis(1)).await;
            }
            import.configure("{endpoint: 'https://right'}", "{}");
        };
        let ((reason, requeue_after), ()) = tokio::join!(import.reconcile(), change);
        assert_eq!((reason, requeue_after), (Some(expected), Some(Duration::from_millis(1))));
        import.reconcile().await;
        assert_eq!(import.service.count(DESCRIBE_DATASET), 2, "{expected:?}");
    }
}

#[tokio::test]
async fn refused_configuration_triggers_only_imports_that_say_why_they_are_denied() {
    for (error, reason) in FAILURES {
        let import = Import::new(error, "{}");
        assert_eq!(import.reconcile().await.0, Some(reason));
        import.take_triggered();
        import.read("accounts: {'1': {}}");
        let is_denied = matches!(reason, Reason::AccessDenied | Reason::CredentialsRefused);
        assert_eq!(import.take_triggered().len(), usize::from(is_denied), "{reason:?}");
    }
}

#[tokio::test]
async fn finished_import_is_not_triggered() {
    let import = Import::new(ErrorKind::Indeterminate, "{}");
    import.reconcile().await;
    let mut finished = import.current().await;
    let status = finished.status.get_or_insert_default();
    crate::api::conditions::set(status, 1, Reason::ImportSucceeded, "", Timestamp::now());
    finished.metadata.resource_version = Some("100".into());
    import.context.observe(&finished);
    import.take_triggered();
    import.configure("{endpoint: 'https://right'}", "{}");
    assert_eq!(import.take_triggered(), [""; 0]);
}
