//! Any configuration. clap parses environment variables like flags, so flags are enough.

use clap::{CommandFactory, Parser};
use personalize_operator::cli::{Cli, Command};
use personalize_operator::import::timing::Severity;

/// Flags of `run`, one per line: as text, or as a byte that chooses the flag, then its value.
fn flags(input: &[u8]) -> Vec<String> {
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let names: Vec<&str> =
        run.get_arguments().filter_map(|arg| arg.get_long()).filter(|name| *name != "help").collect();
    let flag = |line: &[u8]| {
        let (name, value) = line.split_first()?;
        if line.starts_with(b"--") {
            return Some(String::from_utf8_lossy(line).into_owned());
        }
        Some(format!("--{}={}", names[usize::from(*name) % names.len()], String::from_utf8_lossy(value)))
    };
    input.split(|b| *b == b'\n').take(100).filter_map(flag).collect()
}

#[test]
fn configuration() {
    bolero::check!(name = "configuration").with_iterations(500).for_each(|input: &[u8]| {
        // Either clap rejects a flag, or it causes no panic later.
        let mut arguments = vec!["personalize-operator".to_owned(), "run".into()];
        for flag in flags(input) {
            arguments.push(flag);
            if Cli::try_parse_from(&arguments).is_err() {
                arguments.pop();
            }
        }
        let Ok(Cli { command: Command::Run(args) }) = Cli::try_parse_from(arguments) else { return };
        let options = args.options("operator");
        let aws = args.aws_options(options.accounts.clone());
        let timing = options.timing;
        for failures in [0, 1, 17, u32::MAX] {
            for severity in [Severity::Transient, Severity::NeedsUser] {
                let delay = timing.backoff(severity, failures, 1.0);
                assert!(!delay.is_zero(), "a delay of zero would be a busy loop");
            }
        }
        for age in [0, 1, 1 << 40] {
            let age = std::time::Duration::from_secs(age);
            assert!(!timing.poll(age, &[]).is_zero() && !timing.poll(age, &[age]).is_zero());
        }
        let _ = timing.retry(i32::MAX);
        let _ = options.watch_timeout + options.kube_timeout;
        let _ = aws.connect_timeout + aws.read_timeout + aws.operation_timeout;
        assert!(options.quota > 0 && options.concurrency > 0);
    });
}
