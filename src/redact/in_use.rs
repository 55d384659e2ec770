//! The secrets in use. How long a search takes does not depend on their number.

use super::{MAX_IN_USE, MIN_SECRET, REDACTED};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The first bytes of a secret.
type Start = [u8; MIN_SECRET];

#[derive(Debug, Default)]
pub(super) struct InUse {
    by_start: HashMap<Start, Vec<Arc<str>>>,
    /// The secret that was used last is at the end.
    by_use: VecDeque<Arc<str>>,
}

impl InUse {
    /// Remembers a secret. The one that was not used for the longest time may be dropped.
    pub(super) fn remember(&mut self, secret: &str) {
        let Some(start) = secret.as_bytes().first_chunk() else { return };
        let alike = self.by_start.entry(*start).or_default();
        let secret = if let Some(known) = alike.iter().find(|known| ***known == *secret) {
            self.by_use.retain(|other| other != known);
            Arc::clone(known)
        } else {
            let new: Arc<str> = secret.into();
            alike.push(Arc::clone(&new));
            new
        };
        self.by_use.push_back(secret);
        if self.by_use.len() > MAX_IN_USE
            && let Some(dropped) = self.by_use.pop_front()
        {
            self.forget(&dropped);
        }
    }

    fn forget(&mut self, dropped: &Arc<str>) {
        let Some(start) = dropped.as_bytes().first_chunk() else { return };
        if let Some(alike) = self.by_start.get_mut(start) {
            alike.retain(|secret| secret != dropped);
            if alike.is_empty() {
                self.by_start.remove(start);
            }
        }
    }

    /// The text without the secrets.
    pub(super) fn redact(&self, text: String) -> String {
        let (mut clean, mut from, mut at) = (String::new(), 0, 0);
        while let Some(start) = text.as_bytes()[at..].first_chunk() {
            let alike = self.by_start.get(start).into_iter().flatten();
            let found = alike.filter(|secret| is_at(&text, at, secret));
            if let Some(length) = found.map(|secret| secret.len()).max() {
                clean.extend([&text[from..at], REDACTED]);
                at += length;
                from = at;
            } else {
                at += 1;
            }
        }
        if from == 0 { text } else { clean + &text[from..] }
    }
}

fn is_at(text: &str, at: usize, secret: &str) -> bool {
    #[cfg(test)]
    crate::testing::work::count();
    text.as_bytes()[at..].starts_with(secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::work;

    fn secret(i: usize) -> String {
        format!("secret-of-the-test-of-bounds-{i}-")
    }

    #[test]
    fn those_that_were_used_last_are_remembered() {
        let mut in_use = InUse::default();
        for i in 0..2 * MAX_IN_USE {
            in_use.remember(&secret(0));
            in_use.remember(&secret(i));
        }
        assert_eq!(in_use.by_use.len(), MAX_IN_USE);
        assert_eq!(in_use.by_start.values().map(Vec::len).sum::<usize>(), MAX_IN_USE);
        for (i, is_known) in [(0, true), (1, false), (MAX_IN_USE, false), (MAX_IN_USE + 1, true)] {
            assert_eq!(in_use.redact(secret(i)) == REDACTED, is_known, "{i}");
        }
    }

    #[test]
    fn each_secret_is_redacted_as_a_whole_wherever_it_is() {
        let mut in_use = InUse::default();
        ["ä-secret-of-a-test", "ä-secret-of-a-test-too", "short"].iter().for_each(|secret| in_use.remember(secret));
        for (text, expected) in [
            ("ä-secret-of-a-test", "[redacted]"),
            ("ä-secret-of-a-test-too", "[redacted]"),
            ("ö/ä-secret-of-a-testä-secret-of-a-test-tooö", "ö/[redacted][redacted]ö"),
            ("ä-secret-of-a-tes, short", "ä-secret-of-a-tes, short"),
            ("", ""),
        ] {
            assert_eq!(in_use.redact(text.to_owned()), expected);
        }
    }

    #[test]
    fn only_secrets_that_start_like_the_text_are_compared_with_it() {
        let mut in_use = InUse::default();
        (0..MAX_IN_USE).for_each(|i| in_use.remember(&format!("{i:04}-is-a-secret-of-this-test")));
        let text = "1234-is-a-secret-of-this-tes ".repeat(100);
        assert_eq!(work::during(|| assert_eq!(in_use.redact(text.clone()), text)), 100);
    }
}
