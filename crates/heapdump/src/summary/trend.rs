//! The growth of a heap over several summaries of one process. Pure: summaries in, groups with their growth out.

use std::collections::BTreeMap;

use super::{Amount, Groups, Summary};

/// Fewer summaries make no trend.
pub const FEWEST: usize = 3;
/// Growth below this is no leak, bytes.
const LEAST: u64 = 64 << 10;
/// Nor is growth below this share of what there was.
const LEAST_SHARE: u64 = 20;

/// A summary and its time.
#[derive(Clone, Debug)]
pub struct Point {
    /// Milliseconds on any time line.
    pub at_ms: u64,
    /// The summary.
    pub summary: Summary,
}

/// A group over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The name of the group.
    pub name: String,
    /// Its bytes in each summary. 0 stands for a group that was too small to be in it.
    pub bytes: Vec<u64>,
    /// Its objects in each summary.
    pub counts: Vec<u64>,
    /// The slope of the line that fits the bytes best, bytes an hour.
    pub per_hour: i64,
    /// True if it is larger in each summary than in the one before.
    pub always_grows: bool,
}

impl Series {
    /// The difference between the last summary and the first, bytes.
    pub fn growth(&self) -> i128 {
        let of = |bytes: Option<&u64>| i128::from(bytes.copied().unwrap_or(0));
        of(self.bytes.last()) - of(self.bytes.first())
    }

    /// Returns true if it grows as a leak does: in each summary, and by more than noise.
    pub fn leaks(&self) -> bool {
        let first = self.bytes.first().copied().unwrap_or(0);
        self.always_grows && self.growth() >= i128::from(LEAST.max(first / LEAST_SHARE))
    }
}

/// The groups over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trend {
    /// True if the figures are of the objects that survived three collections, which leaves garbage out.
    pub old_only: bool,
    /// All objects.
    pub all: Series,
    /// The groups, the one that grew most first.
    pub groups: Vec<Series>,
}

/// Compares summaries of one process, oldest first. `groups` tells which groups.
pub fn of(points: &[Point], groups: impl Fn(&Summary) -> &Groups) -> Trend {
    let old_only = points.iter().all(|point| point.summary.objects.old > 0);
    let figures = |amount: Amount| if old_only { (amount.old_bytes, amount.old) } else { (amount.bytes, amount.count) };
    let mut found: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for (number, point) in points.iter().enumerate() {
        for group in &groups(&point.summary).groups {
            let figure = found.entry(&group.name).or_insert_with(|| vec![(0, 0); points.len()]);
            figure[number] = figures(group.amount);
        }
    }
    let series = |name: &str, figures: Vec<(u64, u64)>| {
        let (bytes, counts): (Vec<u64>, Vec<u64>) = figures.into_iter().unzip();
        let always_grows = bytes.len() >= FEWEST && bytes.windows(2).all(|pair| pair[1] > pair[0]);
        let per_hour = slope(points, &bytes);
        Series { name: name.to_owned(), bytes, counts, per_hour, always_grows }
    };
    let all = series("(all)", points.iter().map(|point| figures(point.summary.objects)).collect());
    let mut groups: Vec<Series> = found.into_iter().map(|(name, figures)| series(name, figures)).collect();
    groups.sort_by_key(|group| std::cmp::Reverse((group.leaks(), group.growth())));
    Trend { old_only, all, groups }
}

// Least squares, in whole numbers: milliseconds, and bytes an hour.
fn slope(points: &[Point], bytes: &[u64]) -> i64 {
    let start = points.first().map_or(0, |point| point.at_ms);
    let times = points.iter().map(|point| i128::from(point.at_ms.saturating_sub(start)));
    let pairs = times.zip(bytes.iter().map(|bytes| i128::from(*bytes)));
    let (mut count, mut x, mut y, mut xx, mut xy) = (0i128, 0i128, 0i128, 0i128, 0i128);
    for (time, bytes) in pairs {
        count += 1;
        x += time;
        y += bytes;
        xx += time * time;
        xy += time.saturating_mul(bytes);
    }
    let (above, below) = (count * xy - x * y, count * xx - x * x);
    i64::try_from(above.saturating_mul(3_600_000).checked_div(below).unwrap_or(0)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Group;
    use super::*;

    // Each summary is an hour after the one before; figures are name, all bytes, old bytes.
    fn points(summaries: &[&[(&str, u64, u64)]]) -> Vec<Point> {
        let point = |(hour, groups): (u64, &&[(&str, u64, u64)])| {
            let mut summary = Summary::default();
            for (name, bytes, old_bytes) in *groups {
                let amount = Amount { count: bytes / 40, bytes: *bytes, old: old_bytes / 40, old_bytes: *old_bytes };
                summary.objects.add(amount);
                summary.classes.groups.push(Group { name: (*name).to_owned(), amount });
            }
            Point { at_ms: hour * 3_600_000, summary }
        };
        (0..).zip(summaries).map(point).collect()
    }

    #[test]
    fn what_grows_in_each_summary_leaks_and_what_only_varies_does_not() {
        const M: u64 = 1 << 20;
        let points = points(&[
            &[("Session", M, M), ("String", 9 * M, 8 * M), ("Cache", M, M)],
            &[("Session", 3 * M, 2 * M), ("String", 40 * M, 9 * M), ("Cache", 5 * M, 5 * M), ("New", M, M)],
            &[("Session", 3 * M, 3 * M), ("String", 11 * M, 8 * M), ("Cache", 5 * M, 5 * M), ("New", M, M)],
        ]);
        let trend = of(&points, |summary| &summary.classes);
        assert!(trend.old_only);
        let told: Vec<_> = trend.groups.iter().map(|g| (g.name.as_str(), g.growth(), g.leaks())).collect();
        let m = i128::from(M);
        assert_eq!(told, [("Session", 2 * m, true), ("Cache", 4 * m, false), ("New", m, false), ("String", 0, false)]);
        assert_eq!(i128::from(trend.groups[0].per_hour), m);
        assert_eq!(trend.groups[2].bytes, [0, M, M]);
        assert_eq!(trend.all.bytes, [10 * M, 17 * M, 17 * M]);
    }

    #[test]
    fn growth_that_may_be_noise_is_no_leak() {
        let table: [(&[u64], bool); 5] = [
            (&[0, 40_000, 80_000], true),
            (&[0, 20_000, 40_000], false),
            (&[10_000_000, 10_100_000, 10_200_000], false),
            (&[10_000_000, 10_400_000, 10_800_000], true),
            (&[0, 1_000_000], false),
        ];
        for (bytes, leaks) in table {
            let groups: Vec<[(&str, u64, u64); 1]> = bytes.iter().map(|bytes| [("A", *bytes, 0)]).collect();
            let summaries: Vec<&[(&str, u64, u64)]> = groups.iter().map(|group| &group[..]).collect();
            let trend = of(&points(&summaries), |summary| &summary.classes);
            assert!(!trend.old_only);
            assert_eq!(trend.groups[0].leaks(), leaks, "{bytes:?}");
        }
    }
}
