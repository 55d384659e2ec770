//! Text from outside, made fit for a status, an event or a log line.

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

/// Makes foreign text printable, short and free of secrets: control characters and runs of white
/// space become one space, access keys and the values of secret-looking names are redacted, and at
/// most [`LONGEST`] characters are kept.
#[must_use]
pub fn sanitize(text: &str) -> String {
    // Bound the work before doing any: the text may be megabytes.
    let printable = text.chars().take(4 * LONGEST).map(|c| if printable(c) { c } else { ' ' });
    let plain: String = printable.collect();
    let mut words: Vec<String> = Vec::new();
    let mut secret_follows = false;
    for word in plain.split(' ').filter(|w| !w.is_empty()) {
        let (redacted, names_secret) = redact(word, secret_follows);
        // "Bearer <token>" and "= <value>" leave the secret to the next word.
        secret_follows = names_secret || (secret_follows && is_joint(word));
        words.push(redacted);
    }
    let clean = words.join(" ");
    if clean.chars().count() <= LONGEST && text.chars().nth(4 * LONGEST).is_none() {
        clean
    } else {
        clean.chars().take(LONGEST - 1).chain(['…']).collect()
    }
}

fn printable(c: char) -> bool {
    let bidirectional = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let separator = matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    !c.is_control() && !c.is_whitespace() && !bidirectional && !separator
}

fn is_joint(word: &str) -> bool {
    matches!(word, "=" | ":" | "is") || word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic")
}

/// The word without its secrets, and whether the next word is one.
fn redact(word: &str, expected: bool) -> (String, bool) {
    if expected && !is_joint(word) {
        return (REDACTED.into(), false);
    }
    if let Some(at) = word.find(['=', ':']) {
        let (name, value) = word.split_at(at);
        if names_secret(name) {
            let value = &value[1..];
            return if value.trim_matches(['"', '\'']).is_empty() {
                (word.into(), true)
            } else {
                (format!("{name}{}{REDACTED}", &word[at..=at]), false)
            };
        }
    }
    if names_secret(word) {
        return (word.into(), true);
    }
    let looks_secret = |token: &str| is_access_key_id(token) || is_secret_key(token);
    if word.split(is_delimiter).any(looks_secret) {
        return (REDACTED.into(), false);
    }
    (word.into(), false)
}

fn is_delimiter(c: char) -> bool {
    !(c.is_ascii_alphanumeric() || matches!(c, '/' | '+' | '_' | '-'))
}

fn names_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    SECRET_NAMES.iter().any(|secret| plain.ends_with(secret))
}

/// `AKIA…` and `ASIA…`: 20 upper-case letters and digits.
fn is_access_key_id(token: &str) -> bool {
    token.len() == 20
        && (token.starts_with("AKIA") || token.starts_with("ASIA"))
        && token.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

/// A secret access key has 40 characters of base64, of several kinds; a hash in hex has not.
fn is_secret_key(token: &str) -> bool {
    token.len() == 40
        && token.bytes().any(|b| b.is_ascii_uppercase())
        && token.bytes().any(|b| b.is_ascii_lowercase())
        && token.bytes().any(|b| b.is_ascii_digit())
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'/' || b == b'+')
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn secrets_are_redacted_however_they_are_introduced() {
        let key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKE1";
        for text in [
            format!("key {key} leaked"),
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
        assert_eq!(sanitize("user AKIAIOSFODNN7EXAMPLE denied"), "user [redacted] denied");
    }

    #[test]
    fn hashes_and_arns_are_not_taken_for_secrets() {
        let text = "arn:aws:iam::123456789012:role/Reader 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12";
        assert_eq!(sanitize(text), text);
    }
}
