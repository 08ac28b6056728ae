//! The tables: names, classes, allocation sites.

use super::{Sink, Writer};
use crate::block::{self, kind};
use crate::memory::{CLASS_SLOTS, ClassSlot};
use crate::record::{NameId, NameKind, Site, SiteId};
use crate::varint::{self, zigzag};

impl<S: Sink> Writer<'_, S> {
    /// Adds a name and returns its id. The writer does not look for equal names: the producer remembers the ids.
    pub fn name(&mut self, kind: NameKind, text: &[u8]) -> Result<NameId, S::Error> {
        let text = text.get(..block::MAX_NAME).unwrap_or(text);
        if self.names.room() < text.len() + 2 * varint::MAX_LEN {
            self.flush_names()?;
        }
        if self.names.is_empty() {
            self.names.number(self.totals.names + 1);
        }
        self.names.byte(kind as u8);
        self.names.number(text.len() as u64);
        self.names.slice(text);
        self.totals.names += 1;
        Ok(NameId(u32::try_from(self.totals.names).unwrap_or(0)))
    }

    /// Adds an allocation site and returns its id. The producer remembers the ids.
    pub fn site(&mut self, site: &Site) -> Result<SiteId, S::Error> {
        if self.sites.room() < 5 * varint::MAX_LEN {
            self.flush_tables()?;
        }
        self.site_count += 1;
        if self.sites.is_empty() {
            self.sites.number(self.site_count.into());
        }
        for number in [site.file.0, site.line, site.method.0, site.class.0] {
            self.sites.number(number.into());
        }
        Ok(SiteId(self.site_count))
    }

    // Returns the value for column CLASS.
    pub(super) fn class_value(&mut self, address: u64) -> u64 {
        if address == 0 {
            return 0;
        }
        let hash = (address >> self.shift).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - CLASS_SLOTS.trailing_zeros());
        for probe in 0..8 {
            let place = usize::try_from(hash.wrapping_add(probe)).unwrap_or(0) % CLASS_SLOTS;
            let Some(slot) = self.classes.get_mut(place) else { break };
            if slot.address == address {
                return u64::from(slot.id) + 1;
            }
            if slot.address == 0 {
                self.class_count += 1;
                *slot = ClassSlot { address, id: self.class_count };
                if self.new_classes.is_empty() {
                    self.new_classes.number(self.class_count.into());
                    self.last_class = 0;
                }
                let units = address >> self.shift;
                self.new_classes.number(zigzag(units.wrapping_sub(self.last_class).cast_signed()));
                self.last_class = units;
                return u64::from(self.class_count) + 1;
            }
        }
        1
    }

    fn flush_names(&mut self) -> Result<(), S::Error> {
        if !self.names.is_empty() {
            self.open();
            self.out.slice(self.names.as_slice());
            self.names.clear();
            self.close(kind::NAMES)?;
        }
        Ok(())
    }

    // Writes the new entries of the tables, so that what uses them may follow.
    pub(super) fn flush_tables(&mut self) -> Result<(), S::Error> {
        self.flush_names()?;
        if !self.new_classes.is_empty() {
            self.open();
            self.out.slice(self.new_classes.as_slice());
            self.new_classes.clear();
            self.close(kind::CLASSES)?;
        }
        if !self.sites.is_empty() {
            self.open();
            self.out.slice(self.sites.as_slice());
            self.sites.clear();
            self.close(kind::SITES)?;
        }
        Ok(())
    }
}
