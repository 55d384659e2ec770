//! Single decisions: any resource, however forged, with any observations, at any time.
//!
//! The bytes of the fuzzer are the seed of the generators that the unit tests use.

use crate::invariants::{check_written, timing};
use personalize_operator::api::{DatasetImportJob, suspended_by};
use personalize_operator::import::{AfterWrite, Effect, ImportRequest, Next, Observations, Trust, plan};
use personalize_operator::personalize::ErrorKind;
use personalize_operator::testing::strategies::{local_state, moment, observations, resource};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// The seed of an input: its bytes folded into 32.
fn seed(input: &[u8]) -> [u8; 32] {
    let mut seed = [0_u8; 32];
    for (at, byte) in input.iter().enumerate() {
        seed[at % 32] = seed[at % 32].wrapping_mul(31).wrapping_add(*byte);
    }
    seed
}

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
        Next::Perform(_) | Next::TryAdmit => {}
    }
}

#[test]
fn decisions() {
    bolero::check!(name = "decisions").with_iterations(3000).for_each(|input: &[u8]| {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed(input));
        let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
        let Some(resource) = value(&mut runner, &resource()) else { return };
        let observed =
            ImportRequest::of(&resource).ok().and_then(|request| value(&mut runner, &observations(&request)));
        let observed = observed.unwrap_or_default();
        let Some(local) = value(&mut runner, &local_state(&resource)) else { return };
        let Some((trusted, now)) = value(&mut runner, &(proptest::bool::ANY, moment())) else { return };
        let trust = if trusted { Trust::Trusted } else { Trust::Untrusted };
        let next = plan(&resource, trust, &observed, &local, now, &timing());
        check(&resource, &observed, &next);
        assert_eq!(next, plan(&resource, trust, &observed, &local, now, &timing()), "plans are repeatable");
    });
}
