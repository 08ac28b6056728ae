//! `siblings`, `cgroup` and `system`: the processes that were forked from the same parent, and the memory that all of them may use.

use serde_json::Value;

/// A process, with its relation to the process in question. Sizes are in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// `self`, `parent`, `sibling` or `child`.
    pub relation: String,
    /// Resident set.
    pub rss: u64,
    /// Proportional set size, if it could be read.
    pub pss: Option<u64>,
    /// Anonymous resident memory, if it was recorded.
    pub anonymous: Option<u64>,
    /// True if it is a fork of the same program image as the process in question, false if it executed a program since.
    pub same_image: Option<bool>,
}

/// The processes around the one in question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// The process, its parent, siblings and children.
    pub members: Vec<Member>,
}

/// The memory that processes may use together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Bytes.
    pub bytes: u64,
    /// True if a cgroup sets the limit, false if it is the machine's memory.
    pub of_cgroup: bool,
}

impl Family {
    /// Parses the report `siblings`. Processes of another program are left out: a shell that started the process is not family.
    pub fn parse(report: &Value) -> Option<Self> {
        let rows = report.get("processes")?.as_array()?;
        let text = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let own = rows.iter().find(|row| text(row, "relation") == "self")?;
        let members = rows.iter().filter(|row| text(row, "comm") == text(own, "comm")).map(|row| {
            let of = |key: &str| row.get(key).and_then(Value::as_u64);
            Member {
                relation: text(row, "relation"),
                rss: of("rss_bytes").unwrap_or(0),
                pss: of("pss_bytes"),
                anonymous: of("anon_bytes"),
                same_image: row.get("same_image").and_then(Value::as_bool),
            }
        });
        Some(Self { members: members.collect() })
    }

    /// Returns the number of workers: the process itself and its siblings.
    pub fn workers(&self) -> usize {
        self.workers_of().count()
    }

    fn workers_of(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| matches!(member.relation.as_str(), "self" | "sibling"))
    }

    /// Returns the memory of all members, pages that they share counted once where that could be read.
    pub fn total(&self) -> u64 {
        self.members.iter().map(|member| member.pss.unwrap_or(member.rss)).sum()
    }

    /// Returns the resident set of the median worker.
    pub fn median(&self) -> u64 {
        let mut sizes: Vec<u64> = self.workers_of().map(|member| member.rss).collect();
        sizes.sort_unstable();
        sizes.get(sizes.len() / 2).copied().unwrap_or(0)
    }

    /// Returns the parent that the process was forked from, if that is proven: it has the same program image.
    pub fn forked_from(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.relation == "parent" && member.same_image == Some(true))
    }

    /// Returns true if a child that shares the process's pages was alive.
    pub fn has_forks_of_its_own(&self) -> bool {
        self.members.iter().any(|member| member.relation == "child" && member.same_image != Some(false))
    }
}

impl Limit {
    /// Takes the limit from the reports `cgroup` and `system`: the smaller of the cgroup's limit and the machine's memory.
    pub fn parse(cgroup: Option<&Value>, system: Option<&Value>) -> Option<Self> {
        let limit = cgroup.and_then(|report| report.get("limit_bytes")?.as_u64());
        let host = system.and_then(|report| kilobytes(report.pointer("/meminfo/MemTotal")?.as_str()?));
        match (limit, host) {
            (Some(limit), Some(host)) if limit >= host => Some(Self { bytes: host, of_cgroup: false }),
            (Some(limit), _) => Some(Self { bytes: limit, of_cgroup: true }),
            (None, host) => host.map(|bytes| Self { bytes, of_cgroup: false }),
        }
    }
}

fn kilobytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn other_programs_are_not_family() {
        let row = |relation: &str, comm: &str, rss: u64, pss: Option<u64>| json!({ "relation": relation, "comm": comm, "rss_bytes": rss, "pss_bytes": pss });
        let mut parent = row("parent", "ruby", 90, Some(50));
        parent["same_image"] = true.into();
        parent["anon_bytes"] = 70.into();
        let family = Family::parse(&json!({ "processes": [
            parent, row("self", "ruby", 100, Some(60)), row("sibling", "ruby", 300, None), row("sibling", "redis", 7, None),
        ]}))
        .unwrap();
        assert_eq!((family.workers(), family.total(), family.median()), (2, 50 + 60 + 300, 300));
        assert_eq!(family.forked_from().unwrap().anonymous, Some(70));
        assert!(!family.has_forks_of_its_own());
        let alone =
            Family::parse(&json!({ "processes": [row("parent", "bash", 5, None), row("self", "ruby", 9, None)] }));
        assert_eq!(alone.as_ref().map(Family::workers), Some(1));
        assert!(alone.unwrap().forked_from().is_none());
        assert_eq!(Family::parse(&json!({ "processes": [] })), None);
    }

    #[test]
    fn the_smaller_limit_counts() {
        let cgroup = |limit: Value| json!({ "limit_bytes": limit });
        let system = json!({ "meminfo": { "MemTotal": "1000 kB" } });
        let table = [
            (Some(cgroup(500.into())), Some(&system), Some((500, true))),
            (Some(cgroup((u64::MAX).into())), Some(&system), Some((1_024_000, false))),
            (Some(cgroup(Value::Null)), Some(&system), Some((1_024_000, false))),
            (Some(cgroup(500.into())), None, Some((500, true))),
            (None, None, None),
        ];
        for (cgroup, system, expected) in table {
            let limit = Limit::parse(cgroup.as_ref(), system).map(|limit| (limit.bytes, limit.of_cgroup));
            assert_eq!(limit, expected, "{cgroup:?}");
        }
    }
}
