//! Single decisions: any resource, however forged, with any observations, at any time.
//!
//! The fuzzer chooses the seed of the generators that the unit tests use. Its bytes can't be the random numbers of the
//! generators: each choice of proptest halves the rest of them, and when none is left, proptest draws zeros without end.

use crate::invariants::{check_written, timing};
use personalize_operator::api::{DatasetImportJob, suspended_by};
use personalize_operator::import::{AfterWrite, Effect, ImportRequest, Next, Observations, Trust, plan};
use personalize_operator::personalize::ErrorKind;
use personalize_operator::testing::strategies::{moment, situation};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// A value of this strategy; `None` if it rejects the random numbers.
fn value<S: Strategy>(runner: &mut TestRunner, strategy: &S) -> Option<S::Value> {
    strategy.new_tree(runner).ok().map(|tree| tree.current())
}

fn check(resource: &DatasetImportJob, observations: &Observations, next: &Next) {
    let recorded = resource.status.clone().unwrap_or_default();
    match next {
        Next::Perform(Effect::CreateJob { attempt }) => {
            let error = observations.lookups.get(attempt).and_then(|lookup| lookup.as_ref().err());
            assert_eq!(observations.intent, Some(*attempt), "a create follows an intent of this reconciliation");
            assert_eq!(recorded.submission.map(|s| s.attempt), Some(*attempt), "the intent is recorded");
            assert_eq!(
                error.map(|error| error.kind),
                Some(ErrorKind::NotFound),
                "a create follows a lookup that finds no job"
            );
            assert!(observations.create.is_none(), "a reconciliation creates once");
        }
        Next::Perform(Effect::WriteStatus { status, then: AfterWrite::Submit { attempt } }) => {
            let request = ImportRequest::of(resource).expect("a request");
            let submission = status.submission.as_ref().expect("an intent");
            assert!(observations.live, "an intent is written only after a live read");
            assert_eq!(observations.namespace, Some(Ok(())), "an intent is written only if the namespace allows it");
            assert!(suspended_by(resource).is_none() && resource.metadata.deletion_timestamp.is_none());
            assert_eq!(submission.job_name, request.job_name(*attempt));
            check_written(resource, status);
        }
        Next::Finish(outcome) => {
            let Some(status) = &outcome.status else { return };
            assert_ne!(**status, recorded, "a write changes something");
            let generations = [recorded.observed_generation, Some(resource.metadata.generation.unwrap_or(0)), None];
            assert!(generations.contains(&status.observed_generation), "{:?}", status.observed_generation);
            check_written(resource, status);
        }
        Next::Perform(_) | Next::TryAdmit | Next::FindNewerImport => {}
    }
}

#[test]
fn decisions() {
    bolero::check!(name = "decisions").with_iterations(3000).with_type().for_each(|seed: &[u8; 32]| {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, seed);
        let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
        let Some((resource, observations, local)) = value(&mut runner, &situation()) else { return };
        let Some((trusted, now)) = value(&mut runner, &(proptest::bool::ANY, moment())) else { return };
        let trust = if trusted { Trust::Trusted } else { Trust::Untrusted };
        let next = plan(&resource, trust, &observations, &local, now, &timing());
        check(&resource, &observations, &next);
        assert_eq!(next, plan(&resource, trust, &observations, &local, now, &timing()), "plans are repeatable");
    });
}
