//! Flags: their bounds, their errors, and what they mean together.

use super::*;
use clap::CommandFactory;

#[test]
fn every_flag_of_run_has_a_variable_and_a_help_text() {
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    for arg in run.get_arguments().filter(|a| a.get_id() != "help") {
        let long = arg.get_long().unwrap();
        let env = arg.get_env().unwrap_or_default().to_string_lossy().into_owned();
        assert_eq!(env, format!("PERSONALIZE_OPERATOR_{}", long.replace('-', "_").to_uppercase()), "--{long}");
        assert!(arg.get_help().is_some(), "--{long} has a help text");
    }
}

fn run(flags: &[&str]) -> RunArgs {
    let args = ["x", "run"].iter().chain(flags);
    let Command::Run(args) = Cli::try_parse_from(args).unwrap().command else { panic!("not the command run") };
    *args
}

#[test]
fn default_flags_give_the_default_timing() {
    assert_eq!(run(&[]).options("own").timing, Timing::default());
}

#[test]
fn empty_values_mean_the_default() {
    let args = run(&["--identity=", "--lease-namespace=", "--watch-namespaces=", "--account-roles="]);
    let options = args.options("own");
    let election = options.election.unwrap();
    assert!(!election.identity.is_empty(), "two replicas without a name must differ");
    assert_eq!((election.namespace.as_str(), options.namespaces.len()), ("own", 0));
    assert!(options.accounts.roles().is_empty());
    assert!(Cli::try_parse_from(["x", "run", "--lease-name="]).is_err());
}

#[test]
fn lists_are_separated_by_commas_and_trimmed() {
    let (one, two) = ("123456789012=arn:aws:iam::123456789012:role/A", "210987654321=arn:aws:iam::210987654321:role/B");
    let (flag, both) = (format!("--account-roles={one}"), format!("--account-roles={one}, {two},"));
    let roles = |flags: &[&str]| run(flags).options("own").accounts.roles().len();
    assert_eq!(roles(&[&both]), 2);
    assert_eq!(roles(&[&flag, &format!("--account-roles={two}")]), 2, "a repeated flag adds to the list");
    let namespaces = run(&["--watch-namespaces=a, b ,,c"]).options("own").namespaces;
    assert_eq!(namespaces.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn config_map_of_accounts_is_in_the_namespace_of_the_lease() {
    let config_map = |flags: &[&str]| run(flags).options("own").accounts.config_map().map(String::from);
    assert_eq!((config_map(&[]), config_map(&["--accounts-config-map= "])), (None, None));
    let flag = "--accounts-config-map=accounts";
    assert_eq!(config_map(&[flag]).as_deref(), Some("own/accounts"));
    assert_eq!(config_map(&[flag, "--lease-namespace=ops"]).as_deref(), Some("ops/accounts"));
}

#[test]
fn help_of_run_explains_durations() {
    let help = Cli::try_parse_from(["x", "run", "--help"]).unwrap_err().to_string();
    assert!(help.contains("500ms, 30s, 5m or 1h"), "{help}");
}

#[test]
fn wrong_value_is_rejected_with_an_example() {
    let error = Cli::try_parse_from(["x", "run", "--account-roles", "12=x"]).unwrap_err().to_string();
    assert!(error.contains("--account-roles") && error.contains("123456789012=arn:"), "{error}");
    assert!(Cli::try_parse_from(["x", "run", "--lease-duration", "10ms"]).is_err());
}

#[test]
fn zero_and_overflowing_durations_are_rejected() {
    for flag in ["--poll-min", "--backoff-max", "--rejected-max", "--kube-timeout", "--aws-timeout"] {
        for value in ["0s", "367days", "10000000000000000000s"] {
            let error = Cli::try_parse_from(["x", "run", flag, value]).unwrap_err().to_string();
            assert!(error.contains("1ms to 366days"), "{error}");
        }
        assert!(Cli::try_parse_from(["x", "run", flag, "366days"]).is_ok());
    }
}

#[test]
fn grace_period_that_is_shorter_than_an_intent_can_be_fresh_is_rejected() {
    for value in ["1s", "1999ms"] {
        let error = Cli::try_parse_from(["x", "run", "--grace", value]).unwrap_err().to_string();
        assert!(error.contains("--grace") && error.contains("2s to 366days, such as 60s"), "{error}");
    }
    assert_eq!(run(&["--grace=2s"]).options("own").timing.grace, Duration::from_secs(2));
}

#[test]
fn timeout_of_probe_that_overflows_is_rejected() {
    let error = Cli::try_parse_from(["x", "probe", "--timeout=500000000000y"]).unwrap_err().to_string();
    assert!(error.contains("--timeout") && error.contains("366days"), "{error}");
    assert!(Cli::try_parse_from(["x", "probe", "--timeout=0s"]).is_ok(), "one request");
}

#[test]
fn two_roles_of_one_account_are_an_error_that_names_it() {
    let role = |account: &str, name: &str| format!("--account-roles={account}=arn:aws:iam::{account}:role/{name}");
    let (first, second) = (role("123456789012", "A"), role("123456789012", "B"));
    let other = role("210987654321", "B");
    assert_eq!(run(&[&first, &other, &first]).check(), Ok(()));
    let both = format!("{first},123456789012=arn:aws:iam::123456789012:role/B");
    for flags in [vec![first.as_str(), &other, &second], vec![&both]] {
        let error = run(&flags).check().unwrap_err();
        assert!(error.contains("--account-roles") && error.contains("123456789012"), "{error}");
    }
}
