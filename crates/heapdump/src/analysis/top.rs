//! Groups of objects: by class, type, allocation site or generation.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::address::ObjectIndex;
use super::held::{Amount, Held};
use super::memory::{Graph, type_name};
use super::reach::Reach;
use super::retained::{self, Sums};
use crate::record::{SiteId, Type};

/// The key by which objects are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Their class.
    Class,
    /// Their type, as Ruby's virtual machine names it.
    Type,
    /// The place in the code that allocated them.
    Site,
    /// The number of collections before they were allocated.
    Generation,
}

/// A division of all objects into groups.
#[derive(Debug)]
pub struct Groups<'g> {
    graph: &'g Graph,
    by: By,
    /// The groups of generations, and the generations of groups.
    of_generation: HashMap<u32, u32, RandomState>,
    generations: Vec<u32>,
}

impl<'g> Groups<'g> {
    /// Divides the objects of a graph.
    pub fn new(graph: &'g Graph, by: By) -> Self {
        let mut groups = Self { graph, by, of_generation: HashMap::default(), generations: Vec::new() };
        if by == By::Generation {
            for generation in &graph.columns().generations {
                groups.of_generation.entry(*generation).or_insert_with(|| {
                    groups.generations.push(*generation);
                    groups.generations.len() as u32 - 1
                });
            }
        }
        groups
    }

    /// The number of groups; some may be empty.
    pub fn count(&self) -> usize {
        match self.by {
            By::Class => self.graph.classes().len(),
            By::Type => Type::COUNT,
            By::Site => self.graph.sites(),
            By::Generation => self.generations.len(),
        }
    }

    /// The group of an object.
    #[inline]
    pub fn of(&self, object: ObjectIndex) -> u32 {
        let at = object as usize;
        match self.by {
            By::Class => self.graph.class(object),
            By::Type => u32::from(self.graph.kind(object).0) % Type::COUNT as u32,
            By::Site => match self.graph.columns().sites[at] {
                SiteId(site) if (site as usize) < self.graph.sites() => site,
                _ => 0,
            },
            By::Generation => self.of_generation[&self.graph.columns().generations[at]],
        }
    }

    /// The name of a group. It comes from the application.
    pub fn name(&self, group: u32) -> String {
        match self.by {
            By::Class => self.graph.class_name(group).into_owned(),
            By::Type => type_name(Type(group as u8)).to_owned(),
            By::Site if group == 0 => "(not traced)".to_owned(),
            By::Site => {
                let site = self.graph.site(SiteId(group));
                format!("{}:{}", self.graph.text(site.file), site.line)
            }
            By::Generation => match self.generations[group as usize] {
                0 => "(not traced)".to_owned(),
                generation => generation.to_string(),
            },
        }
    }

    /// Counts and sizes of the reachable objects of each group.
    pub fn amounts(&self, reach: &Reach) -> Vec<Amount> {
        let mut amounts = vec![Amount::default(); self.count()];
        for number in reach.numbers() {
            let object = reach.object(number);
            amounts[self.of(object) as usize].add(self.graph.size(object));
        }
        amounts
    }

    /// Counts, sizes and retained sizes of the reachable objects of each group.
    pub fn sums(&self, held: &Held) -> Vec<Sums> {
        let size = |object| self.graph.size(object);
        retained::by_group(&held.dominators, &held.reach, &held.retained, self.count(), |object| self.of(object), size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::testing::application;

    #[test]
    fn groups_add_up_to_what_is_reachable() {
        let graph = application(10);
        let held = Held::new(&graph);
        for by in [By::Class, By::Type, By::Site, By::Generation] {
            let groups = Groups::new(&graph, by);
            let (sums, amounts) = (groups.sums(&held), groups.amounts(&held.reach));
            assert_eq!(sums.iter().map(|sum| sum.shallow).sum::<u64>(), held.retained[0], "{by:?}");
            assert!(
                sums.iter()
                    .zip(&amounts)
                    .all(|(sum, amount)| (sum.count, sum.shallow) == (amount.objects, amount.bytes))
            );
        }
        let groups = Groups::new(&graph, By::Class);
        let sums = groups.sums(&held);
        let named = |name: &str| {
            (0..groups.count() as u32).find(|group| groups.name(*group) == name).map(|group| sums[group as usize])
        };
        assert_eq!(named("User"), Some(Sums { count: 10, shallow: 400, retained: 800 }));
        assert_eq!(Groups::new(&graph, By::Generation).name(0), "(not traced)");
    }
}
