//! Members in the order of their scores, found by rank, score or bytes.
//!
//! Kept as short sorted runs in one sequence: a place is found by halving twice, a rank by adding
//! up the lengths of the runs before it, and a change moves at most one run.

use std::cmp::Ordering;

use bytes::Bytes;

/// A run that grows beyond this is cut in two.
const RUN: usize = 256;

/// A score and its member.
pub(crate) type Place = (f64, Bytes);

/// The order of a sorted set.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ranked {
    runs: Vec<Vec<Place>>,
}

fn compare(place: &Place, score: f64, member: &[u8]) -> Ordering {
    // Minus zero equals zero here, as in Redis; there is no NaN.
    place
        .0
        .partial_cmp(&score)
        .unwrap_or(Ordering::Equal)
        .then_with(|| place.1.as_ref().cmp(member))
}

impl Ranked {
    /// How many places lie before the first that `fits`; `fits` is false, then true, in order.
    pub(crate) fn rank_where(&self, fits: impl Fn(&Place) -> bool) -> usize {
        let index = self.runs.partition_point(|run| run.last().is_some_and(|place| !fits(place)));
        let before: usize = self.runs.iter().take(index).map(Vec::len).sum();
        before + self.runs.get(index).map_or(0, |run| run.partition_point(|place| !fits(place)))
    }

    /// The rank of a member whose score is known.
    pub(crate) fn rank(&self, score: f64, member: &[u8]) -> usize {
        self.rank_where(|place| compare(place, score, member) != Ordering::Less)
    }

    /// The places from rank `start` up to and without `end`.
    pub(crate) fn range(
        &self,
        start: usize,
        end: usize,
    ) -> impl DoubleEndedIterator<Item = &Place> {
        let mut before = 0;
        let mut parts = Vec::new();
        for run in &self.runs {
            let after = before + run.len();
            if after > start && before < end {
                let from = start.saturating_sub(before);
                let to = end.min(after) - before;
                parts.push(run.get(from..to).unwrap_or_default());
            }
            if after >= end {
                break;
            }
            before = after;
        }
        parts.into_iter().flatten()
    }

    pub(crate) fn insert(&mut self, score: f64, member: Bytes) {
        let before = |place: &Place| compare(place, score, &member) == Ordering::Less;
        let index = self.runs.partition_point(|run| run.last().is_some_and(before));
        let index = index.min(self.runs.len().saturating_sub(1));
        let Some(run) = self.runs.get_mut(index) else {
            self.runs.push(vec![(score, member)]);
            return;
        };
        let at = run.partition_point(before);
        run.insert(at, (score, member));
        if run.len() > RUN {
            let second = run.split_off(RUN / 2);
            self.runs.insert(index + 1, second);
        }
    }

    pub(crate) fn remove(&mut self, score: f64, member: &[u8]) {
        let before = |place: &Place| compare(place, score, member) == Ordering::Less;
        let index = self.runs.partition_point(|run| run.last().is_some_and(before));
        let Some(run) = self.runs.get_mut(index) else { return };
        let at = run.partition_point(before);
        if run.get(at).is_some_and(|place| compare(place, score, member) == Ordering::Equal) {
            run.remove(at);
        }
        if run.is_empty() {
            self.runs.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, SeedableRng as _};

    #[test]
    fn ranks_and_ranges_agree_with_a_sorted_vector() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        let mut ranked = Ranked::default();
        let mut plain: Vec<(i64, Bytes)> = Vec::new();
        for _ in 0..20_000 {
            let score = rng.random_range(-50..50_i64);
            let member = Bytes::from(format!("{}", rng.random_range(0..60)));
            let place = (score, member.clone());
            match plain.binary_search(&place) {
                Ok(at) => {
                    plain.remove(at);
                    ranked.remove(crate::number::float(score), &member);
                }
                Err(at) => {
                    plain.insert(at, place);
                    ranked.insert(crate::number::float(score), member);
                }
            }
        }
        let all: Vec<_> = ranked.range(0, usize::MAX).cloned().collect();
        let wanted: Vec<_> =
            plain.iter().map(|(score, m)| (crate::number::float(*score), m.clone())).collect();
        assert_eq!(all, wanted);
        for (rank, (score, member)) in wanted.iter().enumerate() {
            assert_eq!(ranked.rank(*score, member), rank);
        }
        let some: Vec<_> = ranked.range(300, 700).rev().cloned().collect();
        let mut turned: Vec<_> = wanted[300..700].to_vec();
        turned.reverse();
        assert_eq!(some, turned);
    }
}
