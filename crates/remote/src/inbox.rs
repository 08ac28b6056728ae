//! The inbox of a node: requests that people leave in the remote. `ship --watch` looks at it, turns what the operator allows into
//! requests of the store, and answers in the remote. The processes decide about them as about any other request.
//!
//! ```text
//! remote/node            the random part of this store's name
//! remote/requests.json   the requests to this node that it knows
//! ```

mod pending;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diagctl_fs::{self as fs, Durability, Spot};
use diagctl_observe::clock::{self, Stopwatch};
use diagctl_observe::proc::Proc;
use diagctl_store::events::Event;
use diagctl_store::pattern::is_like;
use diagctl_store::requests::{self, Request};
use diagctl_store::{Store, index, shipping};
use serde::{Deserialize, Serialize};

use crate::bucket::Bucket;
use crate::counting::{self, Counting, Named};
use crate::error::Result;
use crate::foreign::Foreign;
use crate::keys;
use crate::output;
use crate::settings::{Requests, Settings};
use crate::ticket::{Answer, Cancellation, LONGEST_MS, MAX_OBJECT, Node, State, Ticket};

/// The most requests to this node that one look takes up. The others wait for the next.
const AT_ONCE: usize = 20;

/// The most requests that one look reads, of which most may be for other nodes.
const READ_AT_ONCE: usize = 200;

/// The most requests to this node that it remembers, some megabyte. Old ones are forgotten, and make room for others.
const MOST_KNOWN: usize = 10_000;

/// The longest file of what is known, bytes.
const MAX_KNOWN: u64 = 4 << 20;

/// The time between two announcements.
const ANNOUNCE: Duration = Duration::from_secs(12 * 3600);

const HOUR_MS: u64 = 3_600_000;

const NAME: &str = "node";

const KNOWN: &str = "requests.json";

/// The longest time between two looks at what accepted requests wait for, which are looks at the store alone.
const WAITING: Duration = Duration::from_secs(10);

/// Follows the name of a person whose request came through the remote.
const THROUGH: &str = " through the remote";

/// The inbox.
#[derive(Debug)]
pub struct Inbox<'a> {
    store: &'a Store,
    bucket: &'a Bucket,
    settings: &'a Settings,
    rules: Requests,
    dir: Spot,
    host: String,
    node: String,
    known: Known,
    /// The ids of requests that are not for this node. They are read again after a restart.
    foreign: BTreeSet<String>,
    looked: Stopwatch,
    announced: Option<Stopwatch>,
    /// The failure that was told last.
    told: Option<String>,
    /// The reason that was last told for each request that waits.
    reasons: BTreeMap<String, String>,
    /// True if the rules have changed, and what was accepted under others is still to be judged.
    is_changed: bool,
    /// True if the remote had more requests than a look takes in, which is told once.
    is_cut: bool,
    /// True if there was no room for another request, which is told once.
    is_full: bool,
}

/// The node's memory of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    /// By id, until requests of that time count no more, whatever expiry their names have.
    requests: BTreeMap<String, Remembered>,
    /// Times at which requests were accepted, whatever became of them, milliseconds.
    accepted: Vec<u64>,
    /// Time at which this memory was lost, milliseconds. Nobody knows what was accepted in the hour before.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Remembered {
    /// The expiry, from the name of the request.
    expires: String,
    /// True while it has no final answer.
    pending: bool,
    /// Time at which it became a request of the store, on the store's time line.
    created: u64,
}

/// Has the next inbox make a name of its own.
pub fn forget_name(remote: &Spot) -> Result<()> {
    Ok(fs::remove_file(&remote.join(NAME))?)
}

impl<'a> Inbox<'a> {
    /// Opens the inbox of a store.
    pub fn open(store: &'a Store, bucket: &'a Bucket, settings: &'a Settings, rules: Requests) -> Result<Self> {
        let dir = shipping::directory(store)?;
        let file = dir.join(NAME);
        let mut random = String::from_utf8(fs::read_bounded(&file, 64).unwrap_or_default()).unwrap_or_default();
        let is_new = random.len() != 8 || !random.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_new {
            random = fs::random_hex()?;
            fs::write_atomic(&file, random.as_bytes(), Durability::Synced)?;
        }
        let (known, is_lost) = match Known::read(&dir.join(KNOWN)) {
            Ok(known) => (known, false),
            Err(why) => {
                output::note(&format!(
                    "what this node knows of requests through the remote is lost, so it accepts none for an hour: {why}"
                ));
                (Known { lost: Some(now_ms()), ..Known::default() }, true)
            }
        };
        let host = Proc::default().hostname();
        let node = keys::node(&host, &random);
        let mut inbox = Self {
            store,
            bucket,
            settings,
            rules,
            dir,
            host,
            node,
            known,
            foreign: BTreeSet::new(),
            looked: Stopwatch::start(),
            announced: None,
            told: None,
            reasons: BTreeMap::new(),
            is_changed: false,
            is_cut: false,
            is_full: false,
        };
        if is_lost {
            // The hour does not begin anew with the next shipper. What cannot be written keeps it from accepting anything, and not from shipping.
            let _ = inbox.remember();
        }
        if is_new {
            inbox.leave_requests_to_the_original()?;
        }
        Ok(inbox)
    }

    /// Obeys other rules from now on. `None` is to obey nobody.
    pub fn change_rules(&mut self, rules: Option<Requests>) -> Result<()> {
        let rules = rules.unwrap_or_else(|| Requests { poll_ms: self.rules.poll_ms, ..Requests::default() });
        if rules != self.rules {
            output::note("the changed [remote.requests] counts from now on");
            self.rules = rules;
            (self.announced, self.is_changed) = (None, true);
        }
        Ok(())
    }

    // True if nobody is obeyed.
    fn is_off(&self) -> bool {
        self.rules.allow_reports.is_empty()
    }

    /// Waits until it is time for the next look.
    pub async fn due(&self) {
        let poll = Duration::from_millis(self.rules.poll_ms);
        let poll = if self.has_pending() { poll.min(WAITING) } else { poll.saturating_sub(self.looked.elapsed()) };
        tokio::time::sleep(poll).await;
    }

    fn has_pending(&self) -> bool {
        self.known.requests.values().any(|known| known.pending)
    }

    /// Looks if it is time, and answers what has been decided meanwhile. A failure is told once, and stops no shipment.
    pub async fn look(&mut self) {
        let is_due = self.announced.is_none() || self.looked.elapsed() >= Duration::from_millis(self.rules.poll_ms);
        let done = self.look_at_all(is_due).await;
        if is_due {
            self.looked = Stopwatch::start();
        }
        let failure = done.err().map(|error| format!("requests through the remote: {error}"));
        if failure.is_some() && failure != self.told {
            output::note(failure.as_deref().unwrap_or_default());
        }
        self.told = failure;
    }

    async fn look_at_all(&mut self, is_due: bool) -> Result<()> {
        if self.is_changed {
            self.withdraw_what_is_not_allowed()?;
            self.is_changed = false;
        }
        self.answer_pending().await?;
        if is_due {
            self.announce().await?;
        }
        if is_due && !self.is_off() {
            self.take().await?;
            // What was just cancelled need not wait for the next look.
            self.answer_pending().await?;
        }
        self.tell_reasons().await
    }

    async fn announce(&mut self) -> Result<()> {
        if self.announced.as_ref().is_none_or(|at| at.elapsed() >= ANNOUNCE) {
            let (host, allow_reports) = (self.host.clone(), self.rules.allow_reports.clone());
            let (store, poll_ms) = (self.store.dir().display().to_string(), self.rules.poll_ms);
            let node = Node { schema: 1, host, store, allow_reports, poll_ms, at: clock::utc_now() };
            self.put(&format!("nodes/{}.json", self.node), &node).await?;
            self.announced = Some(Stopwatch::start());
        }
        Ok(())
    }

    async fn take(&mut self) -> Result<()> {
        let now_ms = clock::Reading::take(String::new()).wall_ms;
        let found = counting::list(self.bucket, now_ms).await?;
        if found.is_cut && !self.is_cut {
            output::note(&counting::too_many());
        }
        self.is_cut = found.is_cut;
        let oldest = counting::oldest(now_ms);
        self.known.requests.retain(|id, known| known.pending || *id > oldest);
        for id in found.cancelled.keys().filter(|id| self.waits(id)) {
            let by = self.canceller(&found, id).await;
            self.withdraw(&Event::about(pending::CANCELLED, id, &format!("cancelled by {by}")))?;
        }
        // What has expired is not listed any more.
        self.foreign.retain(|id| *id > oldest);
        let fresh = found.requests.iter().filter(|named| !self.knows(&named.id));
        let fresh: Vec<Named> = fresh.take(READ_AT_ONCE).cloned().collect();
        let foreign = Foreign::new(self.bucket);
        let mut taken = 0;
        for Named { key, id, expires } in fresh {
            // The same request may have two names.
            if self.knows(&id) {
                continue;
            }
            if taken == AT_ONCE || self.is_full() {
                break;
            }
            // If the remote fails, the request is not remembered, and the next look reads it.
            let ticket: Option<Ticket> = foreign.read(&key).await?;
            let Some(ticket) = ticket.filter(|ticket| ticket.nodes.contains(&self.node)) else {
                self.foreign.insert(id);
                continue;
            };
            taken += 1;
            let mut remembered = Remembered { expires, ..Remembered::default() };
            let answer = if found.cancelled.contains_key(&id) && self.taken_before(&id, now_ms)?.is_none() {
                let reason = format!("cancelled by {}", self.canceller(&found, &id).await);
                Answer { state: State::Failed, cancelled: true, reason, ..Answer::default() }
            } else {
                self.judge(&ticket, &id, &mut remembered, now_ms)?
            };
            // Before it is remembered: a node that is killed here answers again.
            self.answer(&id, answer).await?;
            self.known.requests.insert(id, remembered);
            self.remember()?;
        }
        Ok(())
    }

    fn knows(&self, id: &str) -> bool {
        self.known.requests.contains_key(id) || self.foreign.contains(id)
    }

    // True if there is no room to remember another request, so that it cannot be taken up.
    fn is_full(&mut self) -> bool {
        let is_full = self.known.requests.len() >= MOST_KNOWN;
        if is_full && !self.is_full {
            output::note(&format!(
                "this node had {MOST_KNOWN} requests through the remote within 25h, and takes up no others until the oldest are older: see \
                 who writes them"
            ));
        }
        self.is_full = is_full;
        is_full
    }

    // The person who has cancelled a request, as far as the remote says so.
    async fn canceller(&self, found: &Counting, id: &str) -> String {
        let Some(key) = found.cancelled.get(id) else { return String::new() };
        let data = self.bucket.read(key, MAX_OBJECT).await.ok().flatten().unwrap_or_default();
        let by = serde_json::from_slice(&data).unwrap_or_else(|_| Cancellation::default()).by;
        let by: String = fs::without_secrets(&by).chars().take(256).collect();
        format!("{}{THROUGH}", if by.is_empty() { "somebody" } else { &by })
    }

    // Files a request, or refuses it. Either is in the log.
    fn judge(&mut self, ticket: &Ticket, id: &str, remembered: &mut Remembered, now_ms: i64) -> Result<Answer> {
        let accepted = match self.taken_before(id, now_ms)? {
            Some(created) => Ok(created),
            None => self.accept(ticket, id, &remembered.expires),
        };
        Ok(match accepted {
            Ok(created) => {
                (remembered.pending, remembered.created) = (true, created);
                Answer { state: State::Waiting, ..Answer::default() }
            }
            Err(reason) => {
                // Hidden before they are cut: a secret that was cut off is not recognized.
                let (by, why) = (fs::without_secrets(&ticket.by), fs::without_secrets(&ticket.reason));
                let reports = ticket.reports.join(", ");
                output::note(&format!("refused {id}: {reports:.200} by {by:.256}, {why:.200}: {reason}"));
                Answer { state: State::Refused, reason, ..Answer::default() }
            }
        })
    }

    // The time of a request that a shipper filed before it was killed. It waits, or a process has served it.
    fn taken_before(&self, id: &str, now_ms: i64) -> Result<Option<u64>> {
        if let Some(request) = requests::read(self.store, id) {
            return Ok(Some(request.created));
        }
        let since = u64::try_from(now_ms).unwrap_or(0).saturating_sub(LONGEST_MS);
        Ok(index::of_request(self.store, id, since)?.map(|_| since))
    }

    // Makes it a request of the store, or says why not. Returns its time.
    fn accept(&mut self, ticket: &Ticket, id: &str, expires: &str) -> std::result::Result<u64, String> {
        let reports = ticket.check(id)?;
        self.allows(ticket.reports.iter().map(String::as_str), &ticket.by)?;
        let now_ms = now_ms();
        if self.known.lost.is_some_and(|at| now_ms.saturating_sub(at) < HOUR_MS) {
            return Err("this node has lost its memory of requests, and accepts none for an hour, because \
                remote.requests.max_per_hour may be used up"
                .into());
        }
        self.known.lost = None;
        self.known.accepted.retain(|at| now_ms.saturating_sub(*at) < HOUR_MS);
        if self.known.accepted.len() >= self.rules.max_per_hour {
            return Err(format!(
                "this node has accepted {} requests within an hour, its remote.requests.max_per_hour",
                self.known.accepted.len()
            ));
        }
        // The time line of a store may be ahead of the clock.
        let latest =
            index::summary(self.store).ok().and_then(|summary| summary.latest).map_or(0, |entry| entry.store_ms);
        let created = now_ms.max(latest);
        let request = Request {
            schema: 1,
            id: id.to_owned(),
            reports,
            role: ticket.role.clone(),
            name: ticket.name.clone(),
            reason: ticket.reason.clone(),
            by: format!("{}{THROUGH}", ticket.by),
            created,
            // From the time of the request, not from that of this look.
            expires: created + ticket.expires_ms.min(keys::time_until(expires, now_ms)),
            budgeted: true,
            ..Request::default()
        };
        // The place is taken before the request can be served: a shipper that is killed here would otherwise obey too many.
        self.known.accepted.push(now_ms);
        self.remember().map_err(|e| e.to_string())?;
        requests::write(self.store, &request).map_err(|e| format!("it cannot be filed: {e}"))?;
        output::say(&format!("requested {id}: {} by {}, {}", ticket.reports.join(", "), ticket.by, ticket.reason));
        Ok(created)
    }

    // Returns the reason why a request is not obeyed.
    fn allows<'r>(&self, mut reports: impl Iterator<Item = &'r str>, by: &str) -> std::result::Result<(), String> {
        if let Some(name) = reports.find(|name| !self.rules.allow_reports.iter().any(|allowed| allowed == name)) {
            return Err(format!("{name} is not in remote.requests.allow_reports of this node"));
        }
        if !self.rules.allow_requesters.iter().any(|pattern| is_like(pattern, by)) {
            return Err(format!("{by} is not in remote.requests.allow_requesters of this node"));
        }
        Ok(())
    }

    async fn answer(&self, id: &str, answer: Answer) -> Result<()> {
        let answer = Answer { schema: 1, host: self.host.clone(), at: clock::utc_now(), ..answer };
        self.put(&keys::answer(id, &self.node), &answer).await
    }

    async fn put(&self, key: &str, value: &impl Serialize) -> Result<()> {
        // Structs of texts and numbers can always be encoded.
        self.bucket.put(key, serde_json::to_vec(value).unwrap_or_default().into()).await
    }

    fn remember(&self) -> Result<()> {
        let data = serde_json::to_vec(&self.known).unwrap_or_default();
        Ok(fs::write_atomic(&self.dir.join(KNOWN), &data, Durability::Synced)?)
    }
}

impl Known {
    // Without a file, nothing is known yet.
    fn read(file: &Spot) -> std::result::Result<Self, String> {
        let data = match fs::read_bounded(file, MAX_KNOWN) {
            Err(e) if e.is_not_found() => return Ok(Self::default()),
            read => read.map_err(|e| e.to_string())?,
        };
        serde_json::from_slice(&data).map_err(|e| format!("{} is damaged: {e}", file.path().display()))
    }
}

fn now_ms() -> u64 {
    u64::try_from(clock::Reading::take(String::new()).wall_ms).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    use super::*;
    use diagctl_store::{Access, StoreOptions};

    /// A store and a directory as its remote.
    struct Scene {
        dir: tempfile::TempDir,
        store: Store,
        bucket: Bucket,
        settings: Settings,
    }

    fn scene() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("files");
        std::fs::create_dir(&files).unwrap();
        let store = Store::open(StoreOptions::new(dir.path().join("store")), Access::Create).unwrap();
        let settings = serde_json::json!({ "dir": store.dir().path(), "remote": { "url": "file://" } });
        Scene {
            dir,
            store,
            bucket: Bucket::Directory(files.into()),
            settings: serde_json::from_value(settings).unwrap(),
        }
    }

    impl Scene {
        fn inbox(&self) -> Inbox<'_> {
            let allow_reports = vec!["gc_stat".into()];
            let rules = Requests { allow_reports, allow_requesters: vec!["*".into()], max_per_hour: 1, poll_ms: 0 };
            Inbox::open(&self.store, &self.bucket, &self.settings, rules).unwrap()
        }

        // Leaves a request to a node, and returns its id.
        async fn request(&self, inbox: &Inbox<'_>, number: usize, node: &str) -> String {
            let now_ms = clock::Reading::take(String::new()).wall_ms;
            let id = format!("{}-{number:08x}", clock::compact_utc(now_ms));
            let ticket = Ticket {
                schema: 1,
                id: id.clone(),
                nodes: vec![node.to_owned()],
                reports: vec!["gc_stat".into()],
                reason: "a test".into(),
                by: "ada".into(),
                created: clock::utc(now_ms),
                expires_ms: 600_000,
                ..Ticket::default()
            };
            inbox.put(&keys::request(&id, &clock::compact_utc(now_ms + 600_000)), &ticket).await.unwrap();
            id
        }

        fn answer(&self, inbox: &Inbox<'_>, id: &str) -> Option<(State, String)> {
            let answer = std::fs::read(self.dir.path().join("files").join(keys::answer(id, &inbox.node))).ok()?;
            let answer: Answer = serde_json::from_slice(&answer).unwrap();
            Some((answer.state, answer.reason))
        }

        fn file(&self) -> PathBuf {
            self.store.dir().path().join("remote/requests.json")
        }
    }

    #[tokio::test]
    async fn requests_to_other_nodes_leave_nothing_on_the_disk_and_delay_no_other() {
        let scene = scene();
        let mut inbox = scene.inbox();
        let before = std::fs::metadata(scene.file()).unwrap().ino();
        for number in 0..30 {
            scene.request(&inbox, number, "another").await;
        }
        inbox.look().await;
        assert_eq!((inbox.foreign.len(), inbox.told.as_deref()), (30, None));
        assert_eq!(std::fs::metadata(scene.file()).unwrap().ino(), before, "it was not written");
        for number in 30..60 {
            scene.request(&inbox, number, "another").await;
        }
        let id = scene.request(&inbox, 60, &inbox.node).await;
        inbox.look().await;
        assert_eq!(scene.answer(&inbox, &id), Some((State::Waiting, String::new())), "{:?}", inbox.told);
        let known: Known = serde_json::from_slice(&std::fs::read(scene.file()).unwrap()).unwrap();
        assert_eq!(known.requests.keys().collect::<Vec<_>>(), [&id]);
    }

    #[tokio::test]
    async fn a_node_that_has_lost_its_memory_accepts_nothing_for_an_hour() {
        for damage in ["[[[".to_owned(), " ".repeat(5 << 20)] {
            let scene = scene();
            drop(scene.inbox());
            std::fs::write(scene.file(), damage).unwrap();
            drop(scene.inbox());
            let mut inbox = scene.inbox();
            assert!(inbox.known.lost.is_some(), "the second one knows it, too");
            let id = scene.request(&inbox, 1, &inbox.node).await;
            inbox.look().await;
            let (state, reason) = scene.answer(&inbox, &id).unwrap();
            assert_eq!(state, State::Refused);
            assert!(reason.starts_with("this node has lost its memory of requests"), "{reason}");
            inbox.known.lost = Some(now_ms() - HOUR_MS);
            let id = scene.request(&inbox, 2, &inbox.node).await;
            inbox.look().await;
            assert_eq!(scene.answer(&inbox, &id), Some((State::Waiting, String::new())));
        }
    }

    #[tokio::test]
    async fn a_node_takes_up_no_more_requests_than_it_can_remember() {
        let scene = scene();
        let mut inbox = scene.inbox();
        let at = clock::compact_utc(clock::Reading::take(String::new()).wall_ms);
        let remembered = Remembered { expires: at.clone(), created: u64::MAX, pending: false };
        inbox.known.requests = (0..MOST_KNOWN).map(|n| (format!("{at}-{n:08x}"), remembered.clone())).collect();
        inbox.remember().unwrap();
        assert!(Known::read(&inbox.dir.join(KNOWN)).is_ok(), "all of them can be read again");
        let id = scene.request(&inbox, 0xffff_ffff, &inbox.node).await;
        inbox.look().await;
        assert_eq!(scene.answer(&inbox, &id), None);
        inbox.known.requests.pop_first();
        inbox.look().await;
        assert_eq!(scene.answer(&inbox, &id), Some((State::Waiting, String::new())));
    }

    #[tokio::test]
    async fn a_cancellation_is_answered_by_the_look_that_sees_it() {
        let scene = scene();
        let mut inbox = scene.inbox();
        let id = scene.request(&inbox, 1, &inbox.node).await;
        inbox.look().await;
        assert_eq!(scene.answer(&inbox, &id), Some((State::Waiting, String::new())), "{:?}", inbox.told);
        let now_ms = clock::Reading::take(String::new()).wall_ms;
        let expires = clock::compact_utc(now_ms + 600_000);
        let cancelled = Cancellation { schema: 1, by: "ada".into(), at: clock::utc(now_ms) };
        inbox.put(&keys::cancellation(&id, &expires), &cancelled).await.unwrap();
        inbox.look().await;
        let reason = "cancelled by ada through the remote".into();
        assert_eq!(scene.answer(&inbox, &id), Some((State::Failed, reason)), "{:?}", inbox.told);
    }
}
