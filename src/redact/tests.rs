//! Tests: no secret is kept, and no text without one is changed.

use super::*;
use proptest::prelude::*;
use proptest::sample::select;
use sha2::{Digest, Sha512};

/// Characters that have no glyph: zero-width ones, separators, and those that change the writing direction.
const INVISIBLE: [char; 36] = [
    '\u{200b}',
    '\u{200c}',
    '\u{200d}',
    '\u{200e}',
    '\u{200f}',
    '\u{2028}',
    '\u{2029}',
    '\u{202a}',
    '\u{202b}',
    '\u{202c}',
    '\u{202d}',
    '\u{202e}',
    '\u{2060}',
    '\u{2061}',
    '\u{2062}',
    '\u{2063}',
    '\u{2064}',
    '\u{2065}',
    '\u{2066}',
    '\u{2067}',
    '\u{2068}',
    '\u{2069}',
    '\u{feff}',
    '\u{7f}',
    '\u{85}',
    '\u{a0}',
    '\u{34f}',
    '\u{115f}',
    '\u{180b}',
    '\u{206a}',
    '\u{2800}',
    '\u{3164}',
    '\u{fe0f}',
    '\u{ffa0}',
    '\u{1d173}',
    '\u{e0100}',
];

#[test]
fn invisible_characters_become_one_space() {
    for invisible in INVISIBLE {
        assert_eq!(sanitize(&format!("a{invisible}b{invisible}{invisible}c{invisible}")), "a b c", "{invisible:?}");
    }
}

#[test]
fn plain_sentence_is_unchanged() {
    let text = "Input csv is missing the following columns: [ITEM_ID]";
    assert_eq!(sanitize(text), text);
}

#[test]
fn control_characters_and_line_breaks_become_one_space() {
    assert_eq!(sanitize("a\r\nb\u{1b}[31m\u{202e}c\0"), "a b [31m c");
}

#[test]
fn long_text_is_truncated() {
    let truncated = sanitize(&"x".repeat(10_000_000));
    assert_eq!(truncated.chars().count(), MAX_CHARS);
    assert!(truncated.ends_with('…'));
}

#[test]
fn long_value_is_truncated_while_it_is_formatted() {
    assert_eq!(sanitize_display(&"a\nb"), "a b");
    let (long, mut bounded) = ("ä".repeat(10_000_000), BoundedString(String::new()));
    assert!(write!(bounded, "{long}{long}").is_err());
    assert!(bounded.0.len() < 10 * MAX_CHARS);
    assert_eq!(sanitize_display(&long), sanitize(&long));
}

#[test]
fn secrets_are_redacted_in_every_known_notation() {
    let key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE1";
    for text in [
        format!("key {key} leaked"),
        format!("key-{key}_leaked"),
        format!("aws_secret_access_key={key}"),
        format!("SecretAccessKey: {key}"),
        format!("X-Amz-Security-Token = {key}"),
        format!("Authorization: Bearer {key}"),
        format!("{{\"secretAccessKey\":\"{key}\"}}"),
        format!("https://h/?a=1&X-Amz-Signature={key}"),
    ] {
        let clean = sanitize(&text);
        assert!(!clean.contains(key), "{clean}");
        assert!(clean.contains(REDACTED), "{clean}");
    }
    let token = "IQoJb3JpZ2luX2VjEJr//////////wEaCWV1LXdlc3QtMQ==";
    for text in [
        format!("the token {token} has expired"),
        format!("x-amz-security-token:{token}"),
        format!("{{\"token\": \"{token}\"}}"),
        "https://someone:p%40ss@h/x".to_owned(),
        "proxy-url: http://AKIAIOSFODNN7EXAMPLE@h".to_owned(),
        "https://h/?a=1&X-Amz-Signature=0123abcd&b=2".to_owned(),
        "status: {\\\"token\\\":\\\"abc\\\"}".to_owned(),
    ] {
        let clean = sanitize(&text);
        for secret in [token, "p%40ss", "AKIAIOSFODNN7EXAMPLE", "0123abcd", "abc"] {
            assert!(!clean.contains(secret), "{clean}");
        }
        assert!(clean.contains(REDACTED), "{clean}");
    }
    let expired = "The security token included in the request is expired";
    assert_eq!(sanitize(expired), expired);
    assert_eq!(sanitize("user AKIAIOSFODNN7EXAMPLE denied"), "user [redacted] denied");
}

#[test]
fn secret_in_use_is_redacted_whatever_its_shape() {
    let secret = "only-words-in-a-secret-of-a-test";
    assert_eq!(sanitize(&format!("s3://b/{secret}/x")), format!("s3://b/{secret}/x"));
    remember(secret);
    remember("short");
    assert_eq!(sanitize(&format!("s3://b/{secret}/x, short")), "s3://b/[redacted]/x, short");
}

#[test]
fn sentence_about_a_column_or_a_password_loses_no_word() {
    for text in [
        "Column SESSION_TOKEN has a null value",
        "the password is required for authentication-of-users",
        "s3://shop-data/Exports/2026/11/24/InteractionsFull",
        "no object shop-data/Exports/2026/11/24/InteractionsFull in the bucket",
        "https://s3.eu-west-1.amazonaws.com/shop-data/by:team/a@b.csv",
        "https://s3.eu-west-1.amazonaws.com:443/shop-data/a@b.csv",
        "s3://shop-data/KeyJournals/eyJournalsOfTheWholeYear",
    ] {
        assert_eq!(sanitize(text), text);
    }
}

#[test]
fn at_most_one_in_ten_thousand_random_keys_is_missed() {
    let base64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/+";
    let keys = (0..50_000_u32).map(|i| {
        let random = Sha512::digest(i.to_be_bytes());
        random.iter().take(40).map(|byte| char::from(base64[usize::from(byte % 64)])).collect::<String>()
    });
    let keys = keys.filter(|key| key.contains(|c: char| c.is_ascii_digit()));
    let missed: Vec<String> = keys.filter(|key| sanitize(&format!("the key {key} leaked")).contains(key)).collect();
    assert!(missed.len() <= 5, "{missed:?}");
}

/// Paths as people write them: layouts of data lakes, exports, job runs, and camel case.
fn realistic_paths() -> Vec<String> {
    let roots =
        ["shop-data", "acme.prod.eu", "s3-ml-training-4711", "DataLake", "team_reco/raw", "analytics/Personalize"];
    let layouts = [
        "Exports/{d}/InteractionsFull",
        "exports/{d}/interactions.csv",
        "dt={d}/hour=07/part-00000-c000.csv",
        "year=2026/month=11/UsersAndItems/Snapshot",
        "runs/2fd4e1c6-7a2d-48fc-ad84-9ee1bb76e739/output/",
        "ABTests/VariantB/ItemsV2/Export20261124T0700Z",
        "snapshots/2fd4e1c67a2d28fced849ee1bb76e7391b93eb12/items.csv",
        "Kunden/Käufe/{d}/käufe.csv",
        "glue/InteractionsToCsvJob/run12/InteractionsFull",
        "PersonalizeDatasets/EUWest1/Interactions/{d}",
    ];
    let mut paths = Vec::new();
    for root in roots {
        for layout in layouts {
            for month in 1..=12 {
                for date in [format!("2026/{month:02}/24"), format!("2026-{month:02}-24"), format!("2026{month:02}24")]
                {
                    for width in 1..=12 {
                        let layout = layout.replace("{d}", &date);
                        paths.push(format!("{root}/Run{month:0width$}/{layout}"));
                    }
                }
            }
        }
    }
    paths
}

#[test]
fn at_most_one_in_a_thousand_realistic_paths_is_redacted_and_no_location() {
    let paths = realistic_paths();
    assert!(paths.len() > 20_000);
    let changed: Vec<&String> = paths.iter().filter(|path| sanitize(path) != **path).collect();
    assert!(changed.len() * 1000 <= paths.len(), "{} of {}: {:?}", changed.len(), paths.len(), changed.first());
    for path in paths {
        let location = format!("s3://{path}");
        assert_eq!(sanitize(&location), location);
    }
}

#[test]
fn hashes_and_arns_are_not_secrets() {
    let text = "arn:aws:iam::123456789012:role/Reader 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12";
    assert_eq!(sanitize(text), text);
}

proptest! {
    #[test]
    fn any_text_becomes_printable_and_short_and_sanitizing_it_twice_changes_nothing(
        text in "\\PC{0,50}|(?s).{0,3000}| {4000,4200}.{0,200}|[a-z\\u{200b}-\\u{200f}\\u{2028}-\\u{202e}\\u{2060}-\\u{2069}\\u{feff}]{0,50}",
    ) {
        let clean = sanitize(&text);
        prop_assert!(clean.chars().count() <= MAX_CHARS);
        prop_assert!(!clean.contains(|c: char| c.is_control() || (c.is_whitespace() && c != ' ')), "{clean:?}");
        prop_assert!(!clean.contains(INVISIBLE), "{clean:?}");
        prop_assert_eq!(sanitize(&clean), clean);
    }

    #[test]
    fn named_secret_is_redacted_at_any_position(
        before in "[a-z0-9:=,&{\" ]{0,60}",
        space in 0_usize..4200,
        name in select(vec!["SecretAccessKey", "aws_session_token", "X-Amz-Signature", "password", "\"Authorization\""]),
        separator in select(vec!["=", ":", ": ", " = ", "\":\"", " "]),
        secret in "[A-Za-z0-9]{24,60}",
        after in "[,&} ][a-z]{0,9}",
    ) {
        let clean = sanitize(&format!("{before}{}{name}{separator}{secret}{after}", " ".repeat(space)));
        prop_assert!(!clean.contains(&secret[..20]), "{clean}");
    }

    #[test]
    fn key_at_the_truncation_point_is_not_kept_in_part(space in 4030_usize..4100) {
        let clean = sanitize(&format!("{}wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE1", " ".repeat(space)));
        prop_assert!(!clean.contains("wJalrXUt"), "{clean}");
    }
}
