//! One line of CSV: its quotation marks and its fields.

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

/// Why the quotation marks of a line can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quoting {
    /// A quoted value does not end in this line.
    Open,
    /// Text follows the closing quotation mark.
    AfterClosing,
    /// A quotation mark stands within a value that is not quoted.
    Within,
}

/// Checks the quotation marks of a line. Returns the index of the column with the problem. `\` and a second quotation mark
/// escape one.
pub(super) fn check_quoting(line: &[u8]) -> Result<(), (usize, Quoting)> {
    let (mut column, mut at) = (0, 0);
    loop {
        if line.get(at) == Some(&b'"') {
            at += 1;
            loop {
                match (line.get(at), line.get(at + 1)) {
                    (None, _) => return Err((column, Quoting::Open)),
                    (Some(b'\\'), Some(_)) | (Some(b'"'), Some(b'"')) => at += 2,
                    (Some(b'"'), Some(b',') | None) => break,
                    (Some(b'"'), Some(_)) => return Err((column, Quoting::AfterClosing)),
                    (Some(_), _) => at += 1,
                }
            }
            at += 1;
        } else {
            let end = line[at..].iter().position(|b| *b == b',').map_or(line.len(), |end| at + end);
            if line[at..end].contains(&b'"') {
                return Err((column, Quoting::Within));
            }
            at = end;
        }
        if at >= line.len() {
            return Ok(());
        }
        column += 1;
        at += 1;
    }
}

/// Splits lines into fields, and keeps its memory for the next one.
#[derive(Debug)]
pub(super) struct Splitter {
    reader: Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Default for Splitter {
    fn default() -> Self {
        let reader = ReaderBuilder::new().escape(Some(b'\\')).build();
        Self { reader, text: vec![0; 1024], ends: vec![0; 64] }
    }
}

impl Splitter {
    /// The fields of a line that is not empty.
    pub(super) fn split<'a>(&'a mut self, line: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.reader.reset();
        let (mut read, mut written, mut count) = (0, 0, 0);
        loop {
            let input = &line[read..];
            let (result, in_, out, ends) =
                self.reader.read_record(input, &mut self.text[written..], &mut self.ends[count..]);
            (read, written, count) = (read + in_, written + out, count + ends);
            match result {
                ReadRecordResult::OutputFull => self.text.resize(2 * self.text.len(), 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
                // An empty input is the end.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record | ReadRecordResult::End => break,
            }
        }
        let starts = std::iter::once(0).chain(self.ends[..count].iter().copied());
        starts.zip(&self.ends[..count]).map(|(start, end)| &self.text[start..*end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        let mut splitter = Splitter::default();
        splitter.split(line.as_bytes()).map(|field| String::from_utf8(field.to_vec()).unwrap()).collect()
    }

    #[test]
    fn fields_are_split_as_the_developer_guide_writes_them() {
        assert_eq!(split("a,b,c"), ["a", "b", "c"]);
        assert_eq!(split("a,,"), ["a", "", ""]);
        assert_eq!(split(r#""a,b","say \"hi\"","two ""words""""#), ["a,b", r#"say "hi""#, r#"two "words""#]);
        assert_eq!(split(r"a\b,c"), [r"a\b", "c"]);
        let long = format!("{},{}", "x".repeat(5000), vec!["y"; 200].join(","));
        assert_eq!(split(&long).len(), 201);
    }

    #[test]
    fn quotation_marks_are_at_both_ends_of_a_value_or_escaped() {
        for good in [r#""a,b",c"#, r#"a,"b""#, r#""a\"b",c"#, r#""a""b",c"#, r#"a,"""#, "a,b,", r#""a\\",b"#] {
            assert_eq!(check_quoting(good.as_bytes()), Ok(()), "{good}");
        }
        assert_eq!(check_quoting(br#"a,"b"#), Err((1, Quoting::Open)));
        assert_eq!(check_quoting(br#"a,"b"c,d"#), Err((1, Quoting::AfterClosing)));
        assert_eq!(check_quoting(br#"a,5" b"#), Err((1, Quoting::Within)));
    }
}
