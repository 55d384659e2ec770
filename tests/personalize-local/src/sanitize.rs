//! Makes client input safe for a log line and for HTML.

/// Maximum characters of a sanitized line.
const MAX_CHARS: usize = 300;

/// The beginning of a text, on one line and without control characters.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars().take(MAX_CHARS) {
        // Bidirectional marks are not control characters, but can also make a line misleading.
        if character.is_control()
            || matches!(character, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    if text.chars().nth(MAX_CHARS).is_some() {
        line.push('…');
    }
    line
}

/// The beginning of a text, escaped for HTML.
pub(crate) fn html(text: &str) -> String {
    let line = one_line(text);
    line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::{html, one_line};

    #[test]
    fn control_characters_are_escaped_and_long_text_is_truncated() {
        assert_eq!(one_line("a\r\nb\u{1b}[2J\u{202e}ü"), r"a\r\nb\u{1b}[2J\u{202e}ü");
        assert_eq!(one_line(&"x".repeat(301)), format!("{}…", "x".repeat(300)));
    }

    #[test]
    fn html_special_characters_are_escaped() {
        assert_eq!(html("<b a='&\">"), "&lt;b a=&#39;&amp;&quot;&gt;");
    }
}
