//! Groups of objects: by class, type, allocation site or generation.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::address::ObjectIndex;
use super::held::{Amount, Held};
use super::memory::{Graph, type_name};
use super::reach::Reach;
use super::retained::{self, Sums};
use crate::record::{SiteId, Type};
use crate::tables::shortened;

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
    /// The group of each allocation site: the first one with the same file and line, which other methods may share.
    of_site: Vec<u32>,
}

impl<'g> Groups<'g> {
    /// Divides the objects of a graph.
    pub fn new(graph: &'g Graph, by: By) -> Self {
        let of_site = if by == By::Site { first_of_each_place(graph) } else { Vec::new() };
        let mut groups = Self { graph, by, of_generation: HashMap::default(), generations: Vec::new(), of_site };
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
            By::Site => self.of_site.get(self.graph.columns().sites[at].0 as usize).copied().unwrap_or(0),
            By::Generation => self.of_generation[&self.graph.columns().generations[at]],
        }
    }

    /// The name of a group, shortened if it is very long. It comes from the application.
    pub fn name(&self, group: u32) -> String {
        match self.by {
            By::Class => shortened(self.graph.class_name(group)),
            By::Type => type_name(Type(group as u8)).to_owned(),
            By::Site if group == 0 => "(not traced)".to_owned(),
            By::Site => {
                let site = self.graph.site(SiteId(group));
                format!("{}:{}", shortened(self.graph.text(site.file)), site.line)
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

fn first_of_each_place(graph: &Graph) -> Vec<u32> {
    let mut known = HashMap::<_, u32, RandomState>::default();
    let places = (0..graph.sites() as u32).map(|id| {
        let site = graph.site(SiteId(id));
        (id, (graph.text(site.file), site.line))
    });
    places.map(|(id, place)| if id == 0 { 0 } else { *known.entry(place).or_insert(id) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::builder::Wanted;
    use crate::analysis::load;
    use crate::analysis::testing::{Heap, application, object};

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

    #[test]
    fn a_very_long_name_is_shortened() {
        let mut heap = Heap::new();
        heap.class(0x1000, &"A".repeat(4096), &[]).add(object(0x2000, Type::OBJECT, 0x1000), &[]);
        let graph = heap.finish();
        let name = Groups::new(&graph, By::Class).name(graph.class(1));
        assert!(name.starts_with("AAA") && name.len() < 100, "{name}");
    }

    #[test]
    fn a_line_is_one_group_whatever_methods_allocate_there() {
        let object = |address: &str, line: u32, method: &str| {
            format!(
                "{{\"address\":\"{address}\", \"type\":\"STRING\", \"memsize\":40, \"file\":\"app.rb\", \"line\":{line}, \
                 \"method\":\"{method}\", \"generation\":1}}\n"
            )
        };
        let root = "{\"type\":\"ROOT\", \"root\":\"vm\", \"references\":[\"0x1000\", \"0x1028\", \"0x1050\"]}\n";
        let json =
            [root, &object("0x1000", 7, "new"), &object("0x1028", 7, "dup"), &object("0x1050", 8, "dup")].concat();
        let wanted = Wanted { sites: true, ..Wanted::default() };
        let graph = load::json(json.as_bytes(), wanted).unwrap().graph;
        assert_eq!(graph.sites(), 4);
        let groups = Groups::new(&graph, By::Site);
        let amounts = groups.amounts(&graph.reach());
        let told: Vec<_> = (0..).zip(&amounts).filter(|(_, amount)| amount.objects > 0).collect();
        let told: Vec<_> = told.iter().map(|(group, amount)| (groups.name(*group), amount.objects)).collect();
        assert_eq!(told, [("app.rb:7".to_owned(), 2), ("app.rb:8".to_owned(), 1)]);
    }
}
