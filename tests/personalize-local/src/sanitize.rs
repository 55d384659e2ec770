//! What a client sent, made fit for a log line and for a page.

/// Most characters of a line that holds what a client sent.
const LINE: usize = 300;

/// The beginning of a text, on one line and without control characters.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for letter in text.chars().take(LINE) {
        // Marks that turn the direction of the text round are not control characters, but mislead as well.
        if letter.is_control()
            || matches!(letter, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    if text.chars().nth(LINE).is_some() {
        line.push('…');
    }
    line
}

/// The beginning of a text as HTML.
pub(crate) fn html(text: &str) -> String {
    let line = one_line(text);
    line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::{html, one_line};

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(one_line("a\r\nb\u{1b}[2J\u{202e}ü"), r"a\r\nb\u{1b}[2J\u{202e}ü");
        assert_eq!(one_line(&"x".repeat(301)), format!("{}…", "x".repeat(300)));
    }

    #[test]
    fn what_a_client_sent_is_not_markup() {
        assert_eq!(html("<b a='&\">"), "&lt;b a=&#39;&amp;&quot;&gt;");
    }
}
