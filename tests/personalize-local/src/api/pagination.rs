//! Paging with opaque tokens. A token carries the operation, the filter and the place where the next page starts,
//! and a check sum, so that a token from elsewhere is refused.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::refusal::Refusal;

/// The page size when the request names none.
const DEFAULT_SIZE: usize = 100;

/// Which page of which list.
pub(crate) struct PageRequest<'a> {
    /// What is listed and for whom: a token is good for this only.
    pub(crate) list: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) size: Option<usize>,
}

impl PageRequest<'_> {
    /// Cuts the page out of all items; the token of the next page comes with it if there is one.
    pub(crate) fn cut<T>(&self, items: Vec<T>) -> Result<(Vec<T>, Option<String>), Refusal> {
        let start = match self.token {
            None => 0,
            Some(token) => self.read(token).ok_or_else(Refusal::invalid_token)?,
        };
        let size = self.size.unwrap_or(DEFAULT_SIZE);
        let end = start.saturating_add(size);
        let next = (items.len() > end).then(|| self.write(end));
        Ok((items.into_iter().skip(start).take(size).collect(), next))
    }

    fn sum(&self, place: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.list, place, "personalize-local").hash(&mut hasher);
        hasher.finish()
    }

    fn write(&self, place: usize) -> String {
        format!("{:016x}{:08x}", self.sum(place), place ^ 0x5bd1_e995)
    }

    fn read(&self, token: &str) -> Option<usize> {
        let (sum, place) = (token.get(..16)?, token.get(16..)?);
        let place = usize::from_str_radix(place, 16).ok()? ^ 0x5bd1_e995;
        (u64::from_str_radix(sum, 16).ok()? == self.sum(place)).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::PageRequest;

    #[test]
    fn pages_join_to_the_whole_list() {
        let (mut all, mut token) = (Vec::new(), None::<String>);
        loop {
            let request = PageRequest { list: "jobs", token: token.as_deref(), size: Some(3) };
            let (page, next) = request.cut((0..10).collect()).unwrap();
            all.extend(page);
            token = next;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_token_of_another_list_is_refused() {
        let (_, token) = PageRequest { list: "a", token: None, size: Some(1) }.cut(vec![1, 2]).unwrap();
        let other = PageRequest { list: "b", token: token.as_deref(), size: None };
        assert_eq!(other.cut(vec![1, 2]).unwrap_err().code, "InvalidNextTokenException");
        let made_up = PageRequest { list: "a", token: Some("é"), size: None };
        assert!(made_up.cut(vec![1]).is_err());
    }
}
