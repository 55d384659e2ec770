//! The two text formats that scrapers read, and which one a scraper asked for.

use std::collections::HashSet;

/// A format of the exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0, which Prometheus asks for.
    OpenMetrics,
    /// The classic text format 0.0.4, for everybody who asks for nothing.
    Classic,
}

impl Format {
    /// The format for a request with this `Accept` header.
    #[must_use]
    pub fn accepted(header: Option<&str>) -> Self {
        if header.is_some_and(|h| h.contains("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    /// Its media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// OpenMetrics text in the classic format: there a counter's name includes the suffix that its samples
/// bear, and there is no end mark.
#[must_use]
pub(crate) fn classic(open: &str) -> String {
    let counters: HashSet<&str> =
        open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(keyword), Some(name), Some(rest)) if counters.contains(name) => {
                text.push_str(&format!("# {keyword} {name}_total {rest}\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Format::accepted(Some(prometheus)), Format::OpenMetrics);
        assert_eq!(Format::accepted(Some("*/*")), Format::Classic);
        assert_eq!(Format::accepted(None), Format::Classic);
    }

    #[test]
    fn only_what_describes_a_counter_differs() {
        let open = "# HELP a Calls by code.\n# TYPE a counter\na_total{code=\"a b\"} 1\n# HELP b How full.\n# TYPE b gauge\nb 2\n# EOF\n";
        let expected = "# HELP a_total Calls by code.\n# TYPE a_total counter\na_total{code=\"a b\"} 1\n# HELP b How full.\n# TYPE b gauge\nb 2\n";
        assert_eq!(classic(open), expected);
    }
}
