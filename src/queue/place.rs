//! The place of a resource in the line.

use super::Uid;
use crate::import::Key;
use crate::personalize::DatasetArn;
use jiff::Timestamp;
use std::cmp::Ordering;

/// The place of a resource in the line: by age, then by name. The API server records the age in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) created: Timestamp,
    pub(super) key: Key,
    pub(super) uid: Uid,
    pub(super) dataset: DatasetArn,
}

impl Place {
    /// Whether this resource goes before another one. Resources of the same name and second are equal.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.order(other).is_lt()
    }

    fn order(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        crate::testing::work::count();
        let by_namespace = || natural_order(&self.key.namespace, &other.key.namespace);
        let by_name = || natural_order(&self.key.name, &other.key.name);
        self.created.cmp(&other.created).then_with(by_namespace).then_with(by_name)
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order(other).then_with(|| self.uid.cmp(&other.uid)).then_with(|| self.dataset.cmp(&other.dataset))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Orders names by the numbers in them: `week-2` is before `week-10`.
fn natural_order(a: &str, b: &str) -> Ordering {
    fn parts(name: &str) -> impl Iterator<Item = (usize, &[u8])> {
        name.as_bytes().chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()).map(|part| {
            let zeros = part.iter().take_while(|byte| **byte == b'0').count();
            let number = part.get(zeros..).unwrap_or_default();
            if part.first().is_some_and(u8::is_ascii_digit) { (number.len() + 1, number) } else { (0, part) }
        })
    }
    parts(a).cmp(parts(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_ordered_by_their_numbers() {
        let pairs =
            [("week-2", "week-10"), ("week-09", "week-10"), ("a2b", "a10"), ("a", "b"), ("a", "a-1"), ("a-01", "a-1")];
        for (earlier, later) in pairs {
            assert!(natural_order(earlier, later).is_lt(), "{earlier} {later}");
        }
    }

    proptest! {
        #[test]
        fn order_of_names_is_total(a in "[a-b0-2.-]{0,6}", b in "[a-b0-2.-]{0,6}", c in "[a-b0-2.-]{0,6}") {
            prop_assert_eq!(natural_order(&a, &b), natural_order(&b, &a).reverse());
            prop_assert_eq!(natural_order(&a, &b).is_eq(), a == b);
            if natural_order(&a, &b).is_le() && natural_order(&b, &c).is_le() {
                prop_assert!(natural_order(&a, &c).is_le());
            }
        }
    }
}
