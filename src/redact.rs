//! Text from outside, made fit for a status, an event or a log line.

use std::fmt::{self, Display, Write};

/// The most characters of foreign text that are kept: an event note may hold 1 kB.
pub const LONGEST: usize = 1024;

/// What stands in the place of a secret.
const REDACTED: &str = "[redacted]";

/// Words after which a value is taken for a secret, compared in lower case without `-` and `_`.
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

/// With what the tokens begin that STS gives out, and those of Kubernetes and other JSON web tokens.
const TOKEN_BEGINNINGS: [&str; 6] = ["IQoJb3JpZ2lu", "AgoJb3JpZ2lu", "FwoGZXIvYXdz", "FQoGZXIvYXdz", "AQoDYXdz", "eyJ"];

/// Makes foreign text printable, short and free of secrets: control characters and runs of white
/// space become one space, access keys, tokens, passwords in URLs and the values of secret-looking
/// names are redacted, and at most [`LONGEST`] characters are kept.
#[must_use]
pub fn sanitize(text: &str) -> String {
    clean(text, LONGEST)
}

/// The same, for a whole line of a log, which may be longer.
#[cfg(feature = "operator")]
pub(crate) fn line(text: &str) -> String {
    clean(text, 4 * LONGEST)
}

/// What something tells of itself, sanitised, without ever holding more of it than that takes: an error
/// may carry an answer of megabytes.
#[must_use]
pub fn told(what: &impl Display) -> String {
    let mut bounded = Bounded(String::new());
    // It ends with an error where there is more than fits.
    let _ = write!(bounded, "{what}");
    sanitize(&bounded.0)
}

/// Takes as much as [`sanitize`] looks at, and a little more, so that it sees that there was more.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (4 * LONGEST + 1).saturating_sub(self.0.chars().count());
        let end = text.char_indices().nth(room).map_or(text.len(), |(end, _)| end);
        self.0.push_str(&text[..end]);
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

fn clean(text: &str, longest: usize) -> String {
    // Bound the work before doing any: the text may be megabytes.
    let printable = text.chars().take(4 * longest).map(|c| if printable(c) { c } else { ' ' });
    let mut plain: String = printable.collect();
    let cut = text.chars().nth(4 * longest).is_some();
    if cut && let Some(end) = plain.rfind(' ') {
        // Half a secret does not look like one.
        plain.truncate(end);
    }
    let mut words: Vec<String> = Vec::new();
    let mut secret_follows = false;
    for word in plain.split(' ').filter(|w| !w.is_empty()) {
        let (redacted, names_secret) = redact(&without_userinfo(word), secret_follows);
        // "Bearer <token>" and "= <value>" leave the secret to the next word.
        secret_follows = names_secret || (secret_follows && is_joint(word));
        words.push(redacted);
    }
    let clean = words.join(" ");
    if clean.chars().count() <= longest && !cut {
        clean
    } else {
        clean.chars().take(longest - 1).chain(['…']).collect()
    }
}

fn printable(c: char) -> bool {
    let joins = matches!(c, '\u{200b}'..='\u{200f}' | '\u{ad}' | '\u{180e}' | '\u{e0000}'..='\u{e007f}');
    let invisible = joins || matches!(c, '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}');
    let separator = matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    !c.is_control() && !c.is_whitespace() && !invisible && !separator
}

fn is_joint(word: &str) -> bool {
    matches!(word, "=" | ":" | "is") || word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic")
}

/// A URL without the user and the password in it.
fn without_userinfo(word: &str) -> String {
    match word.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://{REDACTED}@{host}"),
            None => word.into(),
        },
        None => word.into(),
    }
}

/// The word without its secrets, and whether the next word is one.
fn redact(word: &str, expected: bool) -> (String, bool) {
    if expected && !is_joint(word) {
        return (REDACTED.into(), names_secret(word));
    }
    for (at, sign) in word.match_indices(['=', ':']) {
        let (name, value) = (&word[..at], &word[at + sign.len()..]);
        // "token" alone is a common word; before such a sign it is a name.
        if names_secret(name) || plain(name).ends_with("token") {
            return if value.trim_matches(['"', '\'', '\\']).is_empty() {
                (word.into(), true)
            } else {
                (format!("{name}{sign}{REDACTED}"), false)
            };
        }
    }
    if names_secret(word) {
        return (word.into(), true);
    }
    let is_token = |part: &str| TOKEN_BEGINNINGS.iter().any(|b| begins(part, b));
    let is_key_id = word.split(|c: char| !c.is_ascii_alphanumeric()).any(is_access_key_id);
    let is_key = word.split(|c: char| !in_secret_key(c)).any(is_secret_key);
    if is_key_id || is_key || word.split(is_delimiter).any(is_token) {
        return (REDACTED.into(), false);
    }
    (word.into(), false)
}

fn begins(token: &str, beginning: &str) -> bool {
    token.len() >= 20 && token.starts_with(beginning)
}

fn is_delimiter(c: char) -> bool {
    !(c.is_ascii_alphanumeric() || matches!(c, '/' | '+' | '_' | '-'))
}

/// Letters and digits alone, in lower case.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn names_secret(name: &str) -> bool {
    let plain = plain(name);
    SECRET_NAMES.iter().any(|secret| plain.ends_with(secret))
}

/// `AKIA…` and `ASIA…`: 20 upper-case letters and digits.
fn is_access_key_id(token: &str) -> bool {
    token.len() == 20
        && (token.starts_with("AKIA") || token.starts_with("ASIA"))
        && token.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

fn in_secret_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '+')
}

/// A secret access key has 40 characters of base64, of several kinds; a hash in hex has not.
fn is_secret_key(token: &str) -> bool {
    token.len() == 40
        && token.bytes().any(|b| b.is_ascii_uppercase())
        && token.bytes().any(|b| b.is_ascii_lowercase())
        && token.bytes().any(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;

    /// Characters without a shape of their own: zero-width ones, separators, and those that turn the direction of
    /// others.
    const UNSEEN: [char; 26] = [
        '\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}',
        '\u{202c}', '\u{202d}', '\u{202e}', '\u{2060}', '\u{2061}', '\u{2062}', '\u{2063}', '\u{2064}', '\u{2065}',
        '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{feff}', '\u{7f}', '\u{85}', '\u{a0}',
    ];

    #[test]
    fn what_has_no_shape_of_its_own_becomes_a_space_between_words() {
        for unseen in UNSEEN {
            assert_eq!(sanitize(&format!("a{unseen}b{unseen}{unseen}c{unseen}")), "a b c", "{unseen:?}");
        }
    }

    #[test]
    fn plain_sentences_pass_unchanged() {
        let text = "Input csv is missing the following columns: [ITEM_ID]";
        assert_eq!(sanitize(text), text);
    }

    #[test]
    fn control_characters_and_line_breaks_become_one_space() {
        assert_eq!(sanitize("a\r\nb\u{1b}[31m\u{202e}c\0"), "a b [31m c");
    }

    #[test]
    fn long_text_is_cut() {
        let cut = sanitize(&"x".repeat(10_000_000));
        assert_eq!(cut.chars().count(), LONGEST);
        assert!(cut.ends_with('…'));
    }

    #[test]
    fn what_tells_of_itself_at_length_is_cut_while_it_speaks() {
        assert_eq!(told(&"a\nb"), "a b");
        let (long, mut held) = ("ä".repeat(10_000_000), Bounded(String::new()));
        assert!(write!(held, "{long}{long}").is_err());
        assert!(held.0.len() < 10 * LONGEST);
        assert_eq!(told(&long), sanitize(&long));
    }

    #[test]
    fn secrets_are_redacted_however_they_are_introduced() {
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
    fn hashes_and_arns_are_not_taken_for_secrets() {
        let text = "arn:aws:iam::123456789012:role/Reader 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12";
        assert_eq!(sanitize(text), text);
    }

    proptest! {
        #[test]
        fn any_text_becomes_printable_and_short_and_stays_as_it_is_then(
            text in "\\PC{0,50}|(?s).{0,3000}| {4000,4200}.{0,200}|[a-z\\u{200b}-\\u{200f}\\u{2028}-\\u{202e}\\u{2060}-\\u{2069}\\u{feff}]{0,50}",
        ) {
            let clean = sanitize(&text);
            prop_assert!(clean.chars().count() <= LONGEST);
            prop_assert!(!clean.contains(|c: char| c.is_control() || (c.is_whitespace() && c != ' ')), "{clean:?}");
            prop_assert!(!clean.contains(UNSEEN), "{clean:?}");
            prop_assert_eq!(sanitize(&clean), clean);
        }

        #[test]
        fn a_named_secret_is_redacted_wherever_it_stands(
            before in "[a-z0-9:=,&{\" ]{0,60}",
            space in 0_usize..4200,
            name in select(vec!["SecretAccessKey", "aws_session_token", "X-Amz-Signature", "password", "\"Authorization\""]),
            joint in select(vec!["=", ":", ": ", " = ", "\":\"", " "]),
            secret in "[A-Za-z0-9]{24,60}",
            after in "[,&} ][a-z]{0,9}",
        ) {
            let clean = sanitize(&format!("{before}{}{name}{joint}{secret}{after}", " ".repeat(space)));
            prop_assert!(!clean.contains(&secret[..20]), "{clean}");
        }

        #[test]
        fn half_a_key_is_not_told_where_the_text_is_cut(space in 4030_usize..4100) {
            let clean = sanitize(&format!("{}wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE1", " ".repeat(space)));
            prop_assert!(!clean.contains("wJalrXUt"), "{clean}");
        }
    }
}
