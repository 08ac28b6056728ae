//! What every command is given: the configuration, and the roots of /proc and of the cgroups.

use diagctl_observe::CpuLimit;

use crate::cgroup::CgroupRoot;
use crate::clock::{Anchor, Now, Reading};
use crate::config::{Config, Loaded};
use crate::error::Failure;
use crate::proc::Proc;
use crate::state::{self, Found, State};
use crate::store::{Access, Store};

/// What every command is given.
pub struct Context {
    /// The configuration, and how it came about.
    pub loaded: Loaded,
    /// procfs.
    pub proc: Proc,
    /// The cgroup mount.
    pub cgroups: CgroupRoot,
    /// Where details of the work go, with DIAGCTL_LOG=debug.
    pub debug: Option<fn(&str)>,
}

impl Context {
    /// On this machine.
    pub fn new(loaded: Loaded, debug: Option<fn(&str)>) -> Self {
        Self { loaded, proc: Proc::default(), cgroups: CgroupRoot::default(), debug }
    }

    /// Tells a detail of the work to whoever wants it.
    pub fn debug(&self, detail: impl FnOnce() -> String) {
        if let Some(tell) = self.debug {
            tell(&detail());
        }
    }

    /// The merged configuration.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// Opens the store that is configured.
    pub fn open(&self, access: Access) -> Result<Store, Failure> {
        match &self.loaded.held {
            Some(dir) => Store::open_held(dir.clone(), self.config(), access),
            None => Store::open(self.config(), access),
        }
    }

    /// The CPU limit that this process is under.
    pub fn own_cpu_limit(&self) -> Option<CpuLimit> {
        self.cgroups.cpu_limit_of(&self.proc, std::process::id())
    }

    /// The present moment on a store's time line.
    pub fn now(&self, state: &State) -> Now {
        Anchor::place(state.clock.as_ref(), Reading::take(self.proc.boot_id()))
    }

    /// The state for commands that only look: a damaged one is as good as none.
    pub fn peek(&self, store: &Store) -> Result<(State, Now), Failure> {
        let state = match state::load(store.dir())? {
            Found::State(state) => *state,
            Found::Nothing | Found::Damaged(_) => State::default(),
        };
        let now = self.now(&state);
        Ok((state, now))
    }
}
