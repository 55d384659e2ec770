//! Sanitises text from outside before it reaches a status, an event or a log line.
//!
//! ```
//! use personalize_operator::redact::sanitize;
//!
//! assert_eq!(sanitize("failed:\r\npassword=hunter2"), "failed: password=[redacted]");
//! ```

mod in_use;

use in_use::InUse;
use std::fmt::{self, Display, Write};
use std::ops::Range;
use std::sync::{LazyLock, PoisonError, RwLock};

/// The maximum number of characters kept of a text. An event note may hold 1 kB.
pub const MAX_CHARS: usize = 1024;

/// The maximum number of characters read of a text.
const MAX_INPUT_CHARS: usize = 4 * MAX_CHARS;

/// Replaces a secret.
const REDACTED: &str = "[redacted]";

/// The maximum number of secrets that are remembered.
pub const MAX_IN_USE: usize = 4096;

/// The least length of a secret that is remembered: a shorter one could be a common word.
const MIN_SECRET: usize = 16;

/// The secrets in use.
static IN_USE: LazyLock<RwLock<InUse>> = LazyLock::new(RwLock::default);

/// Names whose value is a secret: compared by their end, in lower case, without `-` and `_`. Before `=` or `:`, every
/// `token` counts, too, and before `=` every `signature`.
const SECRET_NAMES: [&str; 10] = [
    "secretaccesskey",
    "awssecretkey",
    "secretkey",
    "sessiontoken",
    "securitytoken",
    "xamzsecuritytoken",
    "xamzsignature",
    "externalid",
    "password",
    "authorization",
];

/// Prefixes of STS session tokens and, last, of JSON web tokens such as those of Kubernetes.
const TOKEN_PREFIXES: [&str; 6] = ["IQoJb3JpZ2lu", "AgoJb3JpZ2lu", "FwoGZXIvYXdz", "FQoGZXIvYXdz", "AQoDYXdz", "eyJ"];

/// Redacts this secret wherever it appears from now on. Those that were used last are remembered.
pub fn remember(secret: &str) {
    IN_USE.write().unwrap_or_else(PoisonError::into_inner).remember(secret);
}

/// Makes text printable, short and free of secrets.
///
/// Control characters and runs of white space become one space. The secrets in use, access keys and tokens by the shapes
/// that AWS documents, passwords in URLs and the values of secret-looking names are redacted. At most [`MAX_CHARS`]
/// characters are kept. A data location that the CRD accepts stays as it is.
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
    let readable = IN_USE.read().unwrap_or_else(PoisonError::into_inner).redact(readable);
    let mut words: Vec<String> = Vec::new();
    let mut next = Next::Text;
    for word in readable.split(' ').filter(|w| !w.is_empty()) {
        let (redacted, follows) = redact_word(&without_userinfo(word), next);
        words.push(redacted);
        next = follows;
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

/// Whether a character has a glyph of its own and leaves the direction of writing alone.
fn is_printable(c: char) -> bool {
    let joins_or_fills = matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    );
    let directs = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
    !c.is_control() && !c.is_whitespace() && !joins_or_fills && !directs
}

/// What the words before say about the next one.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    /// Nothing.
    Text,
    /// It follows the name of a secret, as in a sentence: it is a secret if it looks like one.
    MaybeSecret,
    /// It is the value of a secret's name, as in `password: …`.
    Secret,
}

/// The word without the user and password of each URL in it.
fn without_userinfo(word: &str) -> String {
    let (mut clean, mut rest) = (String::new(), word);
    while let Some((before, after)) = rest.split_once("://") {
        clean.extend([before, "://"]);
        rest = after;
        let url = after.split(['"', '\'', '<', '>']).next().unwrap_or_default();
        let authority = url.split(['/', '?', '#']).next().unwrap_or_default();
        // A password with a slash ends the authority early: what follows the colon is no port.
        let has_port = authority.rsplit_once(':').is_none_or(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        if let Some(at) = url.rfind('@').filter(|_| authority.contains('@') || !has_port) {
            clean.push_str(REDACTED);
            rest = &after[at..];
        }
    }
    clean + rest
}

/// Whether this position is in the path of a URL. A path names data: it may look like anything.
fn is_in_path(word: &str, at: usize) -> bool {
    let start = word[..at].rfind("://");
    start.is_some_and(|start| !word[start..at].contains(['?', '&', ',', ';', '"', '\'', '<', '>']))
}

/// The word without its secrets, and what it says about the next word.
fn redact_word(word: &str, expected: Next) -> (String, Next) {
    match expected {
        Next::Text => {}
        // In "Bearer <token>" and "= <value>" the secret is the next word.
        _ if matches!(word, "=" | ":") => return (word.into(), Next::Secret),
        _ if word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic") => {
            return (word.into(), Next::Secret);
        }
        _ if word == "is" => return (word.into(), expected),
        Next::Secret => {
            let next = if is_secret_name(word) { Next::MaybeSecret } else { Next::Text };
            return (REDACTED.into(), next);
        }
        Next::MaybeSecret if looks_secret(word) => return (REDACTED.into(), Next::Text),
        Next::MaybeSecret => {}
    }
    for (at, sign) in word.match_indices(['=', ':']) {
        let (name, value) = (&word[..at], &word[at + sign.len()..]);
        if is_in_path(word, name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len()) {
            continue;
        }
        // Alone these are common words.
        let is_signature = sign == "=" && normalized(name).ends_with("signature");
        if is_secret_name(name) || is_signature || normalized(name).ends_with("token") {
            return if value.trim_matches(['"', '\'', '\\']).is_empty() {
                (word.into(), Next::Secret)
            } else {
                (format!("{name}{sign}{REDACTED}"), Next::Text)
            };
        }
    }
    let names_secret = is_secret_name(word) && !is_in_path(word, word.len());
    (redact_shapes(word), if names_secret { Next::MaybeSecret } else { Next::Text })
}

/// The word without what has the shape of an access key or a token.
fn redact_shapes(word: &str) -> String {
    let to_end_of_value = |from: usize| from..from + word[from..].find(ends_value).unwrap_or(word.len() - from);
    let key_ids = runs(word, |c| c.is_ascii_alphanumeric())
        .filter(|run| is_access_key_id(&word[run.clone()]) && !is_in_path(word, run.end))
        // In "id:signature" the rest is a secret, too.
        .map(|run| if word[run.end..].starts_with(':') { to_end_of_value(run.start) } else { run });
    let keys =
        runs(word, is_secret_key_char).filter(|run| is_secret_key(&word[run.clone()]) && !is_in_path(word, run.end));
    // A token may be encoded.
    let tokens =
        runs(word, is_token_char).filter(|run| is_token(&word[run.clone()])).map(|run| to_end_of_value(run.start));
    let mut secrets: Vec<Range<usize>> = key_ids.chain(keys).chain(tokens).collect();
    secrets.sort_by_key(|secret| secret.start);
    let (mut clean, mut from) = (String::new(), 0);
    for secret in secrets {
        if secret.start >= from {
            clean.extend([&word[from..secret.start], REDACTED]);
        }
        from = from.max(secret.end);
    }
    clean + &word[from..]
}

/// The longest runs of these ASCII characters in a word.
fn runs(word: &str, is_part: impl Fn(char) -> bool) -> impl Iterator<Item = Range<usize>> {
    let start = word.as_ptr().addr();
    word.split(move |c| !is_part(c)).filter(|run| !run.is_empty()).map(move |run| {
        let at = run.as_ptr().addr() - start;
        at..at + run.len()
    })
}

fn is_token(text: &str) -> bool {
    text.len() >= 20 && TOKEN_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '+' | '_' | '-' | '.')
}

fn ends_value(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\' | '&' | ',' | ';' | '<' | '>' | '(' | ')' | '{' | '}' | '[' | ']')
}

/// The name at the end of the text: its letters and digits, in lower case.
fn normalized(name: &str) -> String {
    let name = name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '/');
    let start = name.rfind(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_'));
    if start.is_some_and(|at| name[at..].starts_with('/')) {
        // A part of a path.
        return String::new();
    }
    let name = name.get(start.map_or(0, |at| at + 1)..).unwrap_or(name);
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

fn is_secret_name(name: &str) -> bool {
    let name = normalized(name);
    SECRET_NAMES.iter().any(|secret| name.ends_with(secret))
}

/// Whether a word after the name of a secret is its value and not a part of the sentence.
fn looks_secret(word: &str) -> bool {
    runs(word, |c| is_secret_key_char(c) || matches!(c, '=' | '-' | '_')).any(|run| {
        run.len() >= MIN_SECRET && word[run].contains(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase())
    })
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

/// A secret access key: 40 base64 characters with upper case, lower case and digits. A hash in hex lacks upper case, and
/// a path is made of words.
fn is_secret_key(text: &str) -> bool {
    text.len() == 40
        && text.bytes().any(|b| b.is_ascii_uppercase())
        && text.bytes().any(|b| b.is_ascii_lowercase())
        && text.bytes().any(|b| b.is_ascii_digit())
        && !is_made_of_words(text)
}

/// Whether a text consists of words, numbers and hashes, such as `Exports/2026/InteractionsFull`. Random characters are
/// taken for words less than once in 10,000 times.
fn is_made_of_words(text: &str) -> bool {
    let mut segments = text.split('/').filter(|segment| !segment.is_empty());
    segments.all(|segment| is_hash(segment) || segment.split(|c: char| c.is_ascii_digit()).all(is_camel_case))
}

fn is_hash(text: &str) -> bool {
    text.len() >= 4 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether each word is lower case, capitalised or upper case; a capital may stand alone.
fn is_camel_case(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let capitals = rest.bytes().take_while(u8::is_ascii_uppercase).count();
        let small = rest[capitals..].bytes().take_while(u8::is_ascii_lowercase).count();
        let is_word = if small == 0 { capitals >= 1 } else { capitals <= 1 && small >= 2 };
        if !is_word {
            return false;
        }
        rest = &rest[capitals + small..];
    }
    true
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod tests;
