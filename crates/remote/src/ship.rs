//! `ship`: sends every capture that waits, in order of worth.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::pin::pin;
use std::time::Duration;

use diagctl_fs::{self as fs, LockFile, Spot};
use diagctl_observe::clock::Stopwatch;
use diagctl_store::shipping::{self, Waiting};
use diagctl_store::{Access, Id, Store, units};
use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, watch};

use crate::bucket::Bucket;
use crate::error::{Error, Result};
use crate::inbox::Inbox;
use crate::journal::Journal;
use crate::manifest::Manifests;
use crate::output::{self, Exit};
use crate::place;
use crate::reload::Reload;
use crate::sender::{Sender, Sent};
use crate::settings::Settings;
use crate::stop::Stop;
use crate::turn::{self, Patience};

/// Number of captures that share one write of the manifest, and the longest time for which one waits for others.
const BATCH: usize = 16;
const BATCH_TIME: Duration = Duration::from_secs(5);

/// A pass ends when so much speaks against the remote in a row: two failures of its own, or captures that it refuses, each of which may be
/// refused alone.
const MOST_DOUBT: u32 = 32;
const FAILURE: u32 = 16;
/// From here on the captures go in random order, so that those which are worth most cannot hold up the others for ever.
const RANDOM: u32 = 8;

/// The number of refused captures that are told with the reason.
const MOST_TOLD: usize = 3;

/// Interval at which `--watch` looks at the store, which costs one system call.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest pause after a failure.
const LONGEST_PAUSE_MS: u64 = 300_000;

/// Send the captures of this store to the remote
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Send what waits, and end (default)
    #[arg(long, conflicts_with = "watch")]
    once: bool,
    /// Go on, and send each new capture
    #[arg(long)]
    watch: bool,
    /// Send this capture once more, whatever the remote has of it
    #[arg(long, value_name = "ID")]
    again: Vec<Id>,
    /// End if another shipper is at work that goes on
    #[arg(long, hide = true)]
    unless_watched: bool,
    /// Print a line whenever the remote has confirmed something
    #[arg(long, hide = true)]
    progress: bool,
    /// Time to wait for another shipper, milliseconds
    #[arg(long, default_value_t = 600_000, hide = true)]
    patience_ms: u64,
    /// Print the log as JSON, an object a line, all on stdout
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
///
/// If the store or the bucket cannot be opened.
pub async fn run(args: &Args, settings: &Settings) -> Result<Exit> {
    if args.json {
        output::log_as_json();
    }
    if args.progress {
        output::tell_progress();
    }
    let watch = args.watch && !args.once;
    let work = Work { args, settings, bucket: Bucket::open(&settings.remote)?, watch };
    let mut stop = Stop::install()?;
    let mut reload = Reload::new(settings);
    let mut told = false;
    loop {
        let Some(store) = stop.unless(open(settings, watch, told)).await.transpose()? else { return Ok(Exit::Ok) };
        if told {
            output::note(&format!("now shipping the captures of the store in {}", store.dir().display()));
        }
        if let Some(exit) = work.on(&store, &mut stop, &mut reload).await? {
            return Ok(exit);
        }
        let dir = store.dir().display();
        output::note(&format!("the store {dir} was deleted, renamed or replaced; waiting until there is another one"));
        told = true;
    }
}

/// What a shipper works with, whichever directory is the store.
struct Work<'a> {
    args: &'a Args,
    settings: &'a Settings,
    bucket: Bucket,
    watch: bool,
}

impl Work<'_> {
    // Ships the captures of a store. Returns `None` as soon as the path of the store means another directory, or none.
    async fn on(&self, store: &Store, stop: &mut Stop, reload: &mut Reload<'_>) -> Result<Option<Exit>> {
        let Self { args, settings, bucket, watch } = self;
        let patience = if *watch { Patience::Endless } else { Patience::For(Duration::from_millis(args.patience_ms)) };
        let held = Held::new(store)?;
        let turn = async {
            tokio::select! {
                lock = turn::take(store, patience, args.unless_watched) => lock.map(Turn::of),
                () = held.replaced(), if *watch => Ok(Turn::Replaced),
            }
        };
        // Held to the end.
        let _lock = match stop.unless(turn).await.transpose()? {
            Some(Turn::Mine(lock)) => lock,
            Some(Turn::Replaced) => return Ok(None),
            Some(Turn::Done) | None => return Ok(Some(Exit::Ok)),
        };
        let held = Held::new(store)?;
        place::settle(store.dir(), &shipping::directory(store)?)?;
        let mut shipper = Shipper::new(store, bucket, &settings.remote.url)?;
        let sender = Sender::new(store, bucket, settings)?.again(&args.again)?;
        shipping::note_watch(store, *watch)?;
        let (is_off, mut off) = watch::channel(reload.is_off());
        let passed = Notify::new();
        let mut attending = pin!(async {
            if *watch {
                let Err(error) = self.attend(store, reload, &is_off, &passed).await;
                error
            } else {
                std::future::pending().await
            }
        });
        let mut failures = 0;
        loop {
            let seen = Look::at(store);
            let pass = async {
                tokio::select! {
                    biased;
                    _ = off.wait_for(|off| *off) => Ok(()),
                    done = shipper.pass(&sender) => done,
                }
            };
            let done = stop.within(settings.remote.flush(), pass, attending.as_mut()).await?;
            passed.notify_one();
            if *watch && !stop.told && held.is_replaced() {
                return Ok(None);
            }
            if let Some(Err(error)) = &done {
                shipping::note_failure(store, &error.to_string());
                output::fail(error);
            }
            if stop.told || !watch {
                return Ok(Some(end(&shipping::queue(store)?, shipper.shipped, stop.told)));
            }
            let has_failed = matches!(done, Some(Err(_)));
            // Another capture may pass.
            let may_change = !matches!(&done, Some(Err(e)) if !e.is_of_one_object());
            failures = if has_failed || shipper.is_stuck() { failures + 1 } else { 0 };
            let longest = pause(failures, fs::random_u64()?);
            let rest = async {
                tokio::select! {
                    () = held.replaced() => Ok(Rest::Replaced),
                    error = attending.as_mut() => Err(error),
                    () = tokio::time::sleep(longest), if failures > 0 => Ok(Rest::Over),
                    () = seen.changed(store), if may_change => Ok(Rest::Changed),
                    _ = off.changed() => Ok(Rest::Over),
                }
            };
            match stop.unless(rest).await.transpose()? {
                Some(Rest::Replaced) => return Ok(None),
                Some(Rest::Changed) if !has_failed => failures = 0,
                Some(Rest::Changed | Rest::Over) | None => {}
            }
        }
    }
}

impl Work<'_> {
    // Looks at the configuration and at requests, beside the shipments and the pauses between them. `passed` says that a capture may
    // have been shipped.
    async fn attend(
        &self,
        store: &Store,
        reload: &mut Reload<'_>,
        is_off: &watch::Sender<bool>,
        passed: &Notify,
    ) -> Result<Infallible> {
        let open = |rules| Inbox::open(store, &self.bucket, self.settings, rules);
        let mut inbox = reload.rules().map(open).transpose()?;
        loop {
            if reload.changed().await {
                is_off.send_replace(reload.is_off());
                match &mut inbox {
                    Some(inbox) => inbox.change_rules(reload.rules())?,
                    none => *none = reload.rules().map(open).transpose()?,
                }
            }
            if let Some(inbox) = &mut inbox {
                inbox.look().await;
            }
            tokio::select! {
                () = reload.due() => {}
                () = passed.notified(), if inbox.is_some() => {}
                () = due(inbox.as_ref()) => {}
            }
        }
    }
}

async fn due(inbox: Option<&Inbox<'_>>) {
    match inbox {
        Some(inbox) => inbox.due().await,
        None => std::future::pending().await,
    }
}

/// The outcome of waiting for the turn.
enum Turn {
    Mine(LockFile),
    /// Another shipper does the work.
    Done,
    /// The path of the store means another directory by now.
    Replaced,
}

impl Turn {
    fn of(lock: Option<LockFile>) -> Self {
        lock.map_or(Self::Done, Self::Mine)
    }
}

/// What ended the rest between two passes.
enum Rest {
    /// The path of the store means another directory by now.
    Replaced,
    /// The store has other captures.
    Changed,
    Over,
}

/// The directory of a store and the lock in it, as they were when they were opened.
struct Held<'a> {
    store: &'a Store,
    lock: Spot,
    inode: u64,
}

impl<'a> Held<'a> {
    fn new(store: &'a Store) -> Result<Self> {
        let lock = shipping::lock(store)?;
        let inode = lock.stat().map_or(0, |stat| stat.st_ino);
        Ok(Self { store, lock, inode })
    }

    async fn replaced(&self) {
        while !self.is_replaced() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    // Returns true if the path of the store means another directory by now, or somebody has emptied it. While it cannot be examined,
    // the store is taken to be there.
    fn is_replaced(&self) -> bool {
        let is_gone = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
        let held = fs::stat(self.store.dir()).map(|held| (held.st_dev, held.st_ino));
        let there = std::fs::symlink_metadata(self.store.dir().path()).map(|there| (there.dev(), there.ino()));
        match (there, held, self.lock.stat()) {
            (Err(e), ..) if is_gone(&e) => true,
            (Ok(there), Ok(held), _) if there != held => true,
            (_, _, Err(e)) => self.inode != 0 && is_gone(&e),
            (_, _, Ok(lock)) => self.inode != 0 && lock.st_ino != self.inode,
        }
    }
}

// A sidecar may start before the worker that creates the store.
async fn open(settings: &Settings, wait: bool, mut told: bool) -> Result<Store> {
    loop {
        match Store::open(settings.store(), Access::Write) {
            Err(error @ diagctl_store::Error::NoStore { .. }) if wait => {
                if !told {
                    output::note(&format!("{error} yet; waiting for it"));
                }
                told = true;
                tokio::time::sleep(LOOK_EVERY).await;
            }
            opened => return Ok(opened?),
        }
    }
}

// What is damaged was told already.
fn end(queue: &shipping::Queue, shipped: usize, told: bool) -> Exit {
    let waiting = queue.waiting.len();
    let left = waiting + queue.damaged.len();
    if waiting > 0 {
        let why = if told { "stopped; " } else { "" };
        let plural = if waiting == 1 { " waits" } else { "s wait" };
        output::note(&format!("{why}{waiting} capture{plural} in the store; the next run resumes"));
    } else if left == 0 && shipped == 0 && !told {
        output::say("nothing to ship");
    }
    match (left, shipped) {
        (0, _) => Exit::Ok,
        (_, 0) => Exit::Failed,
        _ => Exit::Partial,
    }
}

struct Shipper<'a> {
    store: &'a Store,
    bucket: &'a Bucket,
    manifests: Manifests,
    journal: Journal,
    /// Sent whole, and not yet in the manifest of the remote.
    sent: Vec<(Id, usize, u64)>,
    /// Number of captures that were shipped.
    shipped: usize,
    told_dropped: u64,
    /// The failures of captures that were told, so that each is told and counted once.
    told: BTreeMap<Id, String>,
}

impl<'a> Shipper<'a> {
    fn new(store: &'a Store, bucket: &'a Bucket, url: &str) -> Result<Self> {
        let dir = shipping::directory(store)?;
        let (manifests, journal) = (Manifests::open(&dir, url)?, Journal::open(&dir)?);
        Ok(Self {
            store,
            bucket,
            manifests,
            journal,
            sent: Vec::new(),
            shipped: 0,
            told_dropped: 0,
            told: BTreeMap::new(),
        })
    }

    // Sends everything that waits. Fails when the remote does not work; a capture that is damaged, or refused by the remote, does not stop
    // the others.
    async fn pass(&mut self, sender: &Sender<'_>) -> Result<()> {
        self.tell_dropped();
        let shipping::Queue { waiting, damaged } = shipping::queue(self.store)?;
        let left: BTreeSet<Id> =
            waiting.iter().map(|capture| capture.id).chain(damaged.iter().map(|(id, _)| *id)).collect();
        self.told.retain(|id, _| left.contains(id));
        for (capture, source) in damaged {
            self.tell(capture, &Error::Unshippable { capture, source: source.into() });
        }
        // What a pass that was interrupted has not confirmed waits still.
        self.sent.clear();
        if !waiting.is_empty() {
            self.bucket.require_mounted(!self.manifests.is_empty())?;
        }
        for id in sender.uploader.abort_stale(|id| left.contains(&id)).await? {
            output::note(&format!("gave up the upload of {id}: the capture was deleted"));
        }
        let mut failed = None;
        let mut refused = Vec::new();
        let mut has_sent = false;
        let line = Line::new(&waiting);
        // Begun in order. A small one does not wait for a large one that was begun before it.
        let send = async |id: Id| (id, sender.send(id).await);
        let next = std::iter::from_fn(|| line.next());
        let mut captures = pin!(stream::iter(next).map(send).buffer_unordered(sender.at_once));
        let mut unconfirmed = Stopwatch::start();
        loop {
            let next = if self.sent.is_empty() {
                captures.next().await
            } else {
                let rest = BATCH_TIME.saturating_sub(unconfirmed.elapsed());
                let Ok(next) = tokio::time::timeout(rest, captures.next()).await else {
                    self.confirm().await?;
                    continue;
                };
                next
            };
            let Some((id, sent)) = next else { break };
            match sent {
                Ok(Some(Sent { entry, files, bytes })) => {
                    has_sent = true;
                    line.doubt.set(0);
                    if self.sent.is_empty() {
                        unconfirmed = Stopwatch::start();
                    }
                    self.manifests.add(&entry)?;
                    self.sent.push((entry.id, files, bytes));
                }
                Ok(None) => {
                    self.told.remove(&id);
                }
                Err(e) if e.is_of_the_remote() => {
                    let is_of_one = e.is_of_one_object();
                    line.doubt.set(line.doubt.get() + if is_of_one { 1 } else { FAILURE });
                    if line.doubt.get() >= MOST_DOUBT {
                        return self.confirm().await.and(Err(e));
                    }
                    if is_of_one {
                        refused.push((id, e));
                    } else {
                        failed.get_or_insert(e);
                    }
                }
                Err(e) => self.tell(id, &e),
            }
            if self.sent.len() >= BATCH {
                self.confirm().await?;
            }
        }
        self.confirm().await?;
        // What is refused of every capture is a matter of the credentials, or of the share.
        if !has_sent && failed.is_none() && !refused.is_empty() {
            failed = Some(refused.swap_remove(0).1);
        } else {
            self.tell_refused(&refused);
        }
        failed.map_or(Ok(()), Err)
    }

    fn tell_refused(&mut self, refused: &[(Id, Error)]) {
        let (shown, others) = refused.split_at(refused.len().min(MOST_TOLD));
        shown.iter().for_each(|(id, error)| self.tell(*id, error));
        let untold = others.iter().filter(|(id, error)| self.told.insert(*id, error.to_string()).is_none()).count();
        if untold > 0 {
            let plural = if untold == 1 { "" } else { "s" };
            output::note(&format!("the remote refused {untold} further capture{plural}"));
        }
    }

    // Nothing counts as shipped before a reader can find it.
    async fn confirm(&mut self) -> Result<()> {
        self.manifests.send(self.bucket).await?;
        for (id, files, bytes) in self.sent.drain(..) {
            shipping::confirm(self.store, id)?;
            self.journal.remove(id)?;
            self.told.remove(&id);
            self.shipped += 1;
            output::shipped(id, files, bytes);
        }
        Ok(())
    }

    // True if a capture cannot be sent as it is, or as this machine is. That may change without a change of the list of captures.
    fn is_stuck(&self) -> bool {
        !self.told.is_empty()
    }

    // Tells and counts the failure of a capture, once.
    fn tell(&mut self, id: Id, error: &Error) {
        let why = error.to_string();
        if self.told.get(&id) != Some(&why) {
            shipping::note_failure(self.store, &why);
            output::fail(error);
            self.told.insert(id, why);
        }
    }

    fn tell_dropped(&mut self) {
        let dropped = shipping::dropped(self.store);
        if dropped.captures > self.told_dropped {
            let (count, bytes) = (dropped.captures, units::size(dropped.bytes));
            let latest = dropped.latest.map(|id| format!("; the latest was {id}, {}", dropped.at)).unwrap_or_default();
            output::note(&format!("deleted by retention and never shipped: {count} captures, {bytes}{latest}"));
            self.told_dropped = count;
        }
    }
}

/// The captures of a pass that were not begun yet.
struct Line {
    ids: RefCell<VecDeque<Id>>,
    /// What speaks against the remote since the last success.
    doubt: Cell<u32>,
}

impl Line {
    fn new(waiting: &[Waiting]) -> Self {
        Self { ids: RefCell::new(waiting.iter().map(|capture| capture.id).collect()), doubt: Cell::new(0) }
    }

    fn next(&self) -> Option<Id> {
        let mut ids = self.ids.borrow_mut();
        let Some(random) = fs::random_u64().ok().filter(|_| self.doubt.get() >= RANDOM) else { return ids.pop_front() };
        let length = ids.len().max(1);
        // The remainder is less than the length.
        ids.remove(usize::try_from(random % length as u64).unwrap_or(0))
    }
}

// Doubles with each failure. The half is random, so that a thousand nodes do not come back at once.
fn pause(failures: u32, random: u64) -> Duration {
    let longest = (1000_u64 << failures.min(16)).min(LONGEST_PAUSE_MS);
    Duration::from_millis(longest / 2 + random % (longest / 2 + 1))
}

/// The list of captures at a moment.
#[derive(PartialEq, Eq)]
struct Look(diagctl_store::catalog::Stamp);

impl Look {
    fn at(store: &Store) -> Self {
        Self(diagctl_store::catalog::Stamp::of_reports(store))
    }

    async fn changed(&self, store: &Store) {
        while Self::at(store) == *self {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_go_in_order_and_at_random_while_the_remote_is_in_doubt() {
        let ids: Vec<Id> = (0..30).map(|n| format!("20260101T0000000{n:02}Z-aaaaaaaa").parse().unwrap()).collect();
        let line = Line { ids: RefCell::new(ids.iter().copied().collect()), doubt: Cell::new(RANDOM - 1) };
        assert_eq!(line.next(), Some(ids[0]));
        line.doubt.set(RANDOM);
        let mut random: Vec<Id> = std::iter::from_fn(|| line.next()).collect();
        assert_ne!(random, ids[1..]);
        random.sort_unstable();
        assert_eq!(random, ids[1..]);
    }

    #[test]
    fn the_pause_doubles_up_to_five_minutes_and_half_of_it_is_random() {
        let table =
            [(1, 0, 1000), (1, 1000, 2000), (2, 0, 2000), (8, 0, 128_000), (9, 0, 150_000), (99, 150_000, 300_000)];
        for (failures, random, expected) in table {
            assert_eq!(pause(failures, random), Duration::from_millis(expected), "{failures}");
        }
    }
}
