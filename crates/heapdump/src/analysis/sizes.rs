//! Sizes of objects in four bytes each.

use std::collections::HashMap;

use super::address::ObjectIndex;

/// The sizes of objects. Those of 4 GiB and more, most often false ones, are kept apart.
#[derive(Debug, Default)]
pub struct Sizes {
    small: Vec<u32>,
    large: HashMap<ObjectIndex, u64>,
}

impl Sizes {
    /// Adds the size of the next object, bytes.
    pub fn push(&mut self, size: u64) {
        match u32::try_from(size) {
            Ok(small) if small != u32::MAX => self.small.push(small),
            _ => {
                // The caller adds no more objects than an index can tell apart.
                self.large.insert(self.small.len() as ObjectIndex, size);
                self.small.push(u32::MAX);
            }
        }
    }

    /// Adds the sizes of the next objects, bytes.
    pub fn extend(&mut self, sizes: &[u64]) {
        if sizes.iter().any(|size| *size >= u64::from(u32::MAX)) {
            return sizes.iter().for_each(|size| self.push(*size));
        }
        // None is cut off: all are below the limit.
        self.small.extend(sizes.iter().map(|size| *size as u32));
    }

    /// The size of an object, bytes.
    #[inline]
    pub fn of(&self, object: ObjectIndex) -> u64 {
        match self.small[object as usize] {
            u32::MAX => self.large.get(&object).copied().unwrap_or_default(),
            small => u64::from(small),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_of_any_length_is_kept() {
        let all = [40, 0, u64::from(u32::MAX) - 1, u64::from(u32::MAX), 1 << 40, u64::MAX];
        let mut sizes = Sizes::default();
        all.iter().for_each(|size| sizes.push(*size));
        sizes.extend(&all);
        sizes.extend(&all[..3]);
        assert_eq!((0..15).map(|object| sizes.of(object)).collect::<Vec<_>>(), [&all[..], &all, &all[..3]].concat());
    }
}
