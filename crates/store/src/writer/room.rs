//! The space that a capture may take.

use crate::error::{Error, Result};
use crate::inventory::{self, Inventory};
use crate::layout::{CATALOG, INDEX};
use crate::staging::Grant;
use crate::{Store, cleanup};
use diagctl_fs as fs;
use diagctl_observe::clock::Reading;

/// Minimum amount of room that is made at the cap, bytes. Prevents a round of deletions for every block.
pub(super) const ROOM_STEP: u64 = 8 << 20;

/// Growth of the store's small files while a capture is written, bytes: records, events and samples, each with its temporary
/// replacement. The index and the catalog are added to this, because each may exist twice for a moment.
pub(super) const BOOKKEEPING: u64 = 64 << 10;

/// The space that is left below the cap. All reports of a capture share it.
pub struct Room<'a> {
    pub(super) store: &'a Store,
    pub(super) grant: &'a Grant,
    /// Read only when the cap is reached.
    pub(super) inventory: Option<Inventory>,
    /// Disk usage of everything but this capture, bytes.
    others: u64,
    pub(super) left: u64,
    /// Bytes to take before `left` is measured again, because other writers of this capture take from the same room.
    allowance: u64,
}

impl<'a> Room<'a> {
    /// Computes the room of a granted capture. Uses the disk usage in the grant, and does not open the index.
    pub fn of(store: &'a Store, grant: &'a Grant) -> Result<Self> {
        let mut room = Self { store, grant, inventory: None, others: 0, left: 0, allowance: 0 };
        let captures = match grant.reports_bytes {
            Some(bytes) => bytes,
            None => room.inventory()?.reports_bytes(),
        };
        room.measure_others(captures);
        Ok(room)
    }

    fn cap(&self) -> u64 {
        self.store.options().retention.max_use
    }

    // Does not write the index, because a `put` at the cap has no room for a second one.
    fn inventory(&mut self) -> Result<&mut Inventory> {
        match self.inventory.take() {
            Some(inventory) => Ok(self.inventory.insert(inventory)),
            None => Ok(self.inventory.insert(Inventory::load(self.store, false)?)),
        }
    }

    fn measure_others(&mut self, captures: u64) {
        let used = captures.saturating_add(inventory::other_bytes(self.store)).saturating_add(self.reserved());
        self.others = used.saturating_sub(self.staged());
        self.measure();
    }

    fn measure(&mut self) {
        self.left = self.cap().saturating_sub(self.others).saturating_sub(self.staged());
        self.allowance = ROOM_STEP.min(self.left / 8);
    }

    fn staged(&self) -> u64 {
        fs::occupied_tree(&self.store.staging(&self.grant.meta.id))
    }

    fn reserved(&self) -> u64 {
        let caches = [INDEX, CATALOG].map(|name| fs::occupied_tree(&self.store.path(name)));
        BOOKKEEPING + caches.iter().sum::<u64>()
    }

    /// Makes room for `bytes` by deleting unprotected captures.
    pub fn make(&mut self, bytes: u64) -> Result<()> {
        let (store, grant) = (self.store, self.grant);
        // A staged capture does not outlive a boot, so the time since the grant is a difference of boot times.
        let since = Reading::take(String::new()).boot_ms.saturating_sub(grant.granted_boot_ms);
        cleanup::make_room(store, grant.meta.store_ms + since, self.inventory()?, bytes)
    }

    // Takes bytes out of the room. Makes more room first if there is not enough.
    pub(super) fn take(&mut self, bytes: u64) -> Result<()> {
        // Asks for a generous amount first. If the cap is too small for that, asks only for the bytes needed.
        let cap = self.cap();
        if bytes > self.allowance {
            self.measure();
        }
        for wanted in [bytes.max(ROOM_STEP.min(cap / 8)), bytes] {
            if bytes > self.left {
                self.make(wanted + self.reserved())?;
                let captures = self.inventory()?.reports_bytes();
                self.measure_others(captures);
            }
        }
        if bytes > self.left {
            return Err(Error::AtCap { cap });
        }
        self.left -= bytes;
        self.allowance = self.allowance.saturating_sub(bytes);
        Ok(())
    }
}
