//! Sanitises text from outside before it reaches a status, an event or a log line.
//!
//! ```
//! use personalize_operator::redact::sanitize;
//!
//! assert_eq!(sanitize("failed:\r\npassword=hunter2"), "failed: password=[redacted]");
//! ```

use std::fmt::{self, Display, Write};

/// The maximum number of characters kept of a text. An event note may hold 1 kB.
pub const MAX_CHARS: usize = 1024;

/// The maximum number of characters read of a text.
const MAX_INPUT_CHARS: usize = 4 * MAX_CHARS;

/// Replaces a secret.
const REDACTED: &str = "[redacted]";

/// Names whose value is a secret: compared by their end, in lower case, without `-` and `_`.
const SECRET_NAMES: [&str; 9] = [
    "secretaccesskey",
    "awssecretkey",
    "secretkey",
    "sessiontoken",
    "securitytoken",
    "xamzsecuritytoken",
    "xamzsignature",
    "password",
    "authorization",
];

/// Prefixes of STS session tokens and, last, of JSON web tokens such as those of Kubernetes.
const TOKEN_PREFIXES: [&str; 6] = ["IQoJb3JpZ2lu", "AgoJb3JpZ2lu", "FwoGZXIvYXdz", "FQoGZXIvYXdz", "AQoDYXdz", "eyJ"];

/// Makes text printable, short and free of secrets.
///
/// Control characters and runs of white space become one space. Access keys, tokens, passwords in URLs and the values
/// of secret-looking names are redacted. At most [`MAX_CHARS`] characters are kept.
#[must_use]
pub fn sanitize(text: &str) -> String {
    // Bound the work first: the text may be megabytes.
    let readable = text.chars().take(MAX_INPUT_CHARS).map(|c| if is_printable(c) { c } else { ' ' });
    let mut readable: String = readable.collect();
    let truncated = text.chars().nth(MAX_INPUT_CHARS).is_some();
    if truncated && let Some(end) = readable.rfind(' ') {
        // Drop the last word: half a secret does not look like one.
        readable.truncate(end);
    }
    let mut words: Vec<String> = Vec::new();
    let mut secret_follows = false;
    for word in readable.split(' ').filter(|w| !w.is_empty()) {
        let (redacted, names_secret) = redact_word(&without_userinfo(word), secret_follows);
        // In "Bearer <token>" and "= <value>" the secret is the next word.
        secret_follows = names_secret || (secret_follows && is_separator(word));
        words.push(redacted);
    }
    let clean = words.join(" ");
    if clean.chars().count() <= MAX_CHARS && !truncated {
        clean
    } else {
        clean.chars().take(MAX_CHARS - 1).chain(['…']).collect()
    }
}

/// Formats and sanitises a value. Formatting stops as soon as there is more text than [`sanitize`] reads, because an
/// error may contain a response of megabytes.
#[must_use]
pub fn sanitize_display(value: &impl Display) -> String {
    let mut bounded = BoundedString(String::new());
    // Fails if the text does not fit.
    let _ = write!(bounded, "{value}");
    sanitize(&bounded.0)
}

/// Holds one character more than [`sanitize`] reads, so that it shows whether the text was longer.
struct BoundedString(String);

impl Write for BoundedString {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (MAX_INPUT_CHARS + 1).saturating_sub(self.0.chars().count());
        let end = text.char_indices().nth(room).map_or(text.len(), |(end, _)| end);
        self.0.push_str(&text[..end]);
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

fn is_printable(c: char) -> bool {
    let zero_width = matches!(c, '\u{200b}'..='\u{200f}' | '\u{ad}' | '\u{180e}' | '\u{e0000}'..='\u{e007f}');
    let invisible = zero_width || matches!(c, '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}');
    let separator = matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    !c.is_control() && !c.is_whitespace() && !invisible && !separator
}

/// Whether the word may stand between the name of a secret and its value.
fn is_separator(word: &str) -> bool {
    matches!(word, "=" | ":" | "is") || word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic")
}

/// The word; if it is a URL, without user and password.
fn without_userinfo(word: &str) -> String {
    match word.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://{REDACTED}@{host}"),
            None => word.into(),
        },
        None => word.into(),
    }
}

/// The word without its secrets, and whether the next word is a secret.
fn redact_word(word: &str, is_secret: bool) -> (String, bool) {
    if is_secret && !is_separator(word) {
        return (REDACTED.into(), is_secret_name(word));
    }
    for (at, sign) in word.match_indices(['=', ':']) {
        let (name, value) = (&word[..at], &word[at + sign.len()..]);
        // "token" alone is a common word; before "=" or ":" it is the name of a secret.
        if is_secret_name(name) || normalized(name).ends_with("token") {
            return if value.trim_matches(['"', '\'', '\\']).is_empty() {
                (word.into(), true)
            } else {
                (format!("{name}{sign}{REDACTED}"), false)
            };
        }
    }
    if is_secret_name(word) {
        return (word.into(), true);
    }
    let has_key_id = word.split(|c: char| !c.is_ascii_alphanumeric()).any(is_access_key_id);
    let has_key = word.split(|c: char| !is_secret_key_char(c)).any(is_secret_key);
    if has_key_id || has_key || word.split(is_token_delimiter).any(is_token) {
        return (REDACTED.into(), false);
    }
    (word.into(), false)
}

fn is_token(text: &str) -> bool {
    text.len() >= 20 && TOKEN_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

fn is_token_delimiter(c: char) -> bool {
    !(c.is_ascii_alphanumeric() || matches!(c, '/' | '+' | '_' | '-'))
}

/// The letters and digits alone, in lower case.
fn normalized(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn is_secret_name(name: &str) -> bool {
    let name = normalized(name);
    SECRET_NAMES.iter().any(|secret| name.ends_with(secret))
}

/// `AKIA…` and `ASIA…`: 20 upper-case letters and digits.
fn is_access_key_id(text: &str) -> bool {
    text.len() == 20
        && (text.starts_with("AKIA") || text.starts_with("ASIA"))
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

fn is_secret_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '+')
}

/// A secret access key: 40 base64 characters with upper case, lower case and digits. A hash in hex lacks upper case.
fn is_secret_key(text: &str) -> bool {
    text.len() == 40
        && text.bytes().any(|b| b.is_ascii_uppercase())
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && text.bytes().any(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;

    /// Characters that have no glyph: zero-width ones, separators, and those that change the writing direction.
    const INVISIBLE: [char; 26] = [
        '\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}',
        '\u{202c}', '\u{202d}', '\u{202e}', '\u{2060}', '\u{2061}', '\u{2062}', '\u{2063}', '\u{2064}', '\u{2065}',
        '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{feff}', '\u{7f}', '\u{85}', '\u{a0}',
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
}
