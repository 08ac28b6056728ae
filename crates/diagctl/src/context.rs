//! The context of every command: the configuration, and the roots of /proc and of the cgroups.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use diagctl_observe::{CpuLimit, ProcessId};

use crate::cgroup::CgroupRoot;
use crate::clock::{Anchor, Now, Reading};
use crate::config::{Config, Loaded};
use crate::proc::Proc;
use crate::state::schedule::{self as state, Found, State};
use diagctl_store::Result;
use diagctl_store::encryption::Identities;
use diagctl_store::{Access, Store, StoreOptions};

/// The context in which every command runs.
pub struct Context {
    /// The configuration, with the source of its values.
    pub loaded: Loaded,
    /// procfs.
    pub proc: Proc,
    /// The cgroup mount.
    pub cgroups: CgroupRoot,
    /// The global options that were given on the command line, as a shell takes them. Suggested commands have them, too.
    pub options: String,
    /// The sink for debug messages, set by DIAGCTL_LOG=debug.
    pub debug: Option<fn(&str)>,
    boot_id: OnceLock<String>,
    identities: OnceLock<Arc<Identities>>,
    published: AtomicBool,
}

impl Context {
    /// Creates the context for this machine.
    pub fn new(loaded: Loaded, debug: Option<fn(&str)>) -> Self {
        let (proc, cgroups, boot_id) = (Proc::default(), CgroupRoot::default(), OnceLock::new());
        let (identities, published) = (OnceLock::new(), AtomicBool::new(false));
        Self { loaded, proc, cgroups, options: String::new(), debug, boot_id, identities, published }
    }

    /// Notes the global options that were given on the command line.
    #[must_use]
    pub fn given(self, options: String) -> Self {
        Self { options, ..self }
    }

    /// Notes that this process has published a capture.
    pub fn note_publication(&self) {
        self.published.store(true, Ordering::Relaxed);
    }

    /// Returns true if this process has published a capture.
    pub fn has_published(&self) -> bool {
        self.published.load(Ordering::Relaxed)
    }

    /// Sends a debug message to the sink, if there is one.
    pub fn debug(&self, detail: impl FnOnce() -> String) {
        if let Some(tell) = self.debug {
            tell(&detail());
        }
    }

    /// The merged configuration.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// Reads encrypted reports with these identities. The first ones count.
    pub fn unlock(&self, identities: Arc<Identities>) {
        self.identities.get_or_init(|| identities);
    }

    /// The identities of the person who reads.
    pub fn identities(&self) -> Option<&Arc<Identities>> {
        self.identities.get()
    }

    /// Opens the configured store.
    pub fn open(&self, access: Access) -> Result<Store> {
        let options = StoreOptions { identities: self.identities.get().cloned(), ..self.config().store_options() };
        match &self.loaded.held {
            Some(dir) => Store::open_held(dir.clone(), options, access),
            None => Store::open(options, access),
        }
    }

    /// The CPU limit on this process.
    pub fn own_cpu_limit(&self) -> Option<CpuLimit> {
        self.cgroups.cpu_limit_of(&self.proc, std::process::id())
    }

    /// The id of this boot of the machine, which is read once.
    pub fn boot_id(&self) -> &str {
        self.boot_id.get_or_init(|| self.proc.boot_id())
    }

    /// The identity of a process with this start, which `/proc` shows under the pid that it has itself.
    pub fn process_id(&self, pid: u32, start_ticks: u64) -> ProcessId {
        ProcessId { pid, pid_ns: self.proc.pid_namespace(), start_ticks, boot_id: self.boot_id().to_owned() }
    }

    /// The current time on a store's time line.
    pub fn now(&self, state: &State) -> Now {
        Anchor::place(state.clock.as_ref(), Reading::take(self.boot_id().to_owned()))
    }

    /// The state and the time for commands that only read. A damaged state counts as an empty one.
    pub fn peek(&self, store: &Store) -> Result<(State, Now)> {
        let state = match state::load(store.dir())? {
            Found::State(state) => *state,
            Found::Nothing | Found::Damaged(_) => State::default(),
        };
        let now = self.now(&state);
        Ok((state, now))
    }
}
