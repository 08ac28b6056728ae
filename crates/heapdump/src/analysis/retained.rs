//! Retained sizes: what would be freed if an object were gone, and the sums of that by group.

use super::address::ObjectIndex;
use super::dominators::Dominators;
use super::reach::Reach;
use super::tree::Step;

/// The retained bytes of each vertex, by number; that of the virtual root is the sum of all. Saturates where sizes are false.
pub fn sizes(dominators: &Dominators, reach: &Reach, size: impl Fn(ObjectIndex) -> u64) -> Vec<u64> {
    let mut retained = Vec::with_capacity(dominators.vertices());
    retained.push(0u64);
    retained.extend(reach.numbers().map(|number| size(reach.object(number))));
    for number in reach.numbers().rev() {
        let own = retained[number as usize];
        let above = &mut retained[dominators.of(number) as usize];
        *above = above.saturating_add(own);
    }
    retained
}

/// The sums of a group of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Objects.
    pub count: u64,
    /// Bytes of the objects themselves.
    pub shallow: u64,
    /// Bytes that would be freed with one or another object of the group. What only several of them hold together is not in it.
    pub retained: u64,
}

/// Sums objects by group. An object dominated by another of its group adds nothing to what the group retains.
pub fn by_group(
    dominators: &Dominators,
    reach: &Reach,
    retained: &[u64],
    groups: usize,
    group: impl Fn(ObjectIndex) -> u32,
    size: impl Fn(ObjectIndex) -> u64,
) -> Vec<Sums> {
    let mut sums = vec![Sums::default(); groups];
    // In the order of the objects: their sizes and groups are then side by side in memory.
    for object in reach.objects_found() {
        let sum = &mut sums[group(object) as usize];
        sum.count += 1;
        sum.shallow = sum.shallow.saturating_add(size(object));
    }
    // How many objects of each group are on the way from the root.
    let mut open = vec![0u32; groups];
    dominators.walk(|step| {
        let (Step::Leaf(number) | Step::Enter(number) | Step::Leave(number)) = step;
        let group = group(reach.object(number)) as usize;
        if matches!(step, Step::Leave(_)) {
            open[group] -= 1;
            return;
        }
        if open[group] == 0 {
            sums[group].retained = sums[group].retained.saturating_add(retained[number as usize]);
        }
        open[group] += u32::from(matches!(step, Step::Enter(_)));
    });
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::address::NONE;
    use crate::analysis::dominators::dominators;
    use crate::analysis::edges::Edges;
    use crate::analysis::reach::ROOT;
    use crate::analysis::testing::Random;

    // By definition: the objects that cannot be reached any more without one.
    fn freed(edges: &Edges, roots: &[ObjectIndex], gone: ObjectIndex) -> Vec<bool> {
        let reached = |gone| {
            let mut seen = vec![false; edges.objects()];
            let mut todo = roots.to_vec();
            while let Some(at) = todo.pop() {
                if at != gone && !std::mem::replace(&mut seen[at as usize], true) {
                    todo.extend(edges.of(at));
                }
            }
            seen
        };
        reached(NONE).into_iter().zip(reached(gone)).map(|(with, without)| with && !without).collect()
    }

    #[test]
    fn objects_and_groups_retain_what_cannot_be_reached_without_them() {
        let mut random = Random::new(3);
        for _ in 0..600 {
            let (edges, roots) = random.edges(25);
            let size: Vec<u64> = (0..edges.objects()).map(|_| 40 << random.below(4)).collect();
            let group: Vec<u32> = (0..edges.objects()).map(|_| random.below(4)).collect();
            let (reach, tree) = dominators(&edges, roots.iter().copied());
            let retained = sizes(&tree, &reach, |object| size[object as usize]);
            let sum =
                |freed: &[bool]| size.iter().zip(freed).map(|(size, freed)| size * u64::from(*freed)).sum::<u64>();
            let mut freed_with = vec![vec![false; size.len()]; 4];
            for number in reach.numbers() {
                let object = reach.object(number);
                let freed = freed(&edges, &roots, object);
                assert_eq!(retained[number as usize], sum(&freed), "{object} {edges:?} {roots:?}");
                freed_with[group[object as usize] as usize].iter_mut().zip(freed).for_each(|(any, one)| *any |= one);
            }
            let of = |object: ObjectIndex| group[object as usize];
            let sums = by_group(&tree, &reach, &retained, 4, of, |object| size[object as usize]);
            for (group, freed) in sums.iter().zip(&freed_with) {
                assert_eq!(group.retained, sum(freed));
            }
            assert_eq!(sums.iter().map(|sum| sum.count).sum::<u64>(), reach.objects() as u64);
            assert_eq!(sums.iter().map(|sum| sum.shallow).sum::<u64>(), retained[ROOT as usize]);
        }
    }

    #[test]
    fn a_false_size_saturates() {
        let edges = Edges::new(vec![0, 1, 1], vec![1], vec![], vec![]);
        let (reach, tree) = dominators(&edges, [0].into_iter());
        assert_eq!(sizes(&tree, &reach, |_| u64::MAX - 1), [u64::MAX, u64::MAX, u64::MAX - 1]);
    }
}
