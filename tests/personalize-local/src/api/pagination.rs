//! Pagination with opaque tokens. A token contains the offset of the next page and a checksum over the offset and the
//! list, so that the token of another list is rejected.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::error::ApiError;

/// The page size if the request has none.
const DEFAULT_PAGE_SIZE: usize = 100;

/// A request for a page of a list.
pub(crate) struct PageRequest<'a> {
    /// Identifies the list, with its caller and filters. A token is valid for this list only.
    pub(crate) list: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) size: Option<usize>,
}

impl PageRequest<'_> {
    /// Selects the page from all items; also returns the token of the next page, if any.
    pub(crate) fn select<T>(&self, items: Vec<T>) -> Result<(Vec<T>, Option<String>), ApiError> {
        let start = match self.token {
            None => 0,
            Some(token) => self.decode(token).ok_or_else(ApiError::invalid_token)?,
        };
        let size = self.size.unwrap_or(DEFAULT_PAGE_SIZE);
        let end = start.saturating_add(size);
        let next = (items.len() > end).then(|| self.encode(end));
        Ok((items.into_iter().skip(start).take(size).collect(), next))
    }

    fn checksum(&self, offset: usize) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.list, offset, "personalize-local").hash(&mut hasher);
        hasher.finish()
    }

    fn encode(&self, offset: usize) -> String {
        format!("{:016x}{:08x}", self.checksum(offset), offset ^ 0x5bd1_e995)
    }

    fn decode(&self, token: &str) -> Option<usize> {
        let (checksum, offset) = (token.get(..16)?, token.get(16..)?);
        let offset = usize::from_str_radix(offset, 16).ok()? ^ 0x5bd1_e995;
        (u64::from_str_radix(checksum, 16).ok()? == self.checksum(offset)).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::PageRequest;

    #[test]
    fn all_pages_together_are_the_whole_list() {
        let (mut all, mut token) = (Vec::new(), None::<String>);
        loop {
            let request = PageRequest { list: "jobs", token: token.as_deref(), size: Some(3) };
            let (page, next) = request.select((0..10).collect()).unwrap();
            all.extend(page);
            token = next;
            if token.is_none() {
                break;
            }
        }
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn token_of_another_list_is_rejected() {
        let (_, token) = PageRequest { list: "a", token: None, size: Some(1) }.select(vec![1, 2]).unwrap();
        let other = PageRequest { list: "b", token: token.as_deref(), size: None };
        assert_eq!(other.select(vec![1, 2]).unwrap_err().code, "InvalidNextTokenException");
        let invalid = PageRequest { list: "a", token: Some("é"), size: None };
        assert!(invalid.select(vec![1]).is_err());
    }
}
