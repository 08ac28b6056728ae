//! File operations whose order and safety matter: names beneath a directory that is held open, atomic replacement, locks, tree
//! walks, and checksums inside small files.
//!
//! Owns the rules that every file of a store obeys: no symbolic link is followed, a file is synced before the directory that
//! names it, and no temporary name can be guessed. Every error names the operation and the path. This crate must not know what
//! the files mean (captures, state, configuration), how a command ends, or what to advise its user.

mod atomic;
mod beneath;
pub mod checksum;
mod dir;
mod error;
mod file;
mod in_place;
mod lock;
mod new_file;
mod printable;
mod random;
mod rename;
mod secret;
mod tree;

pub use atomic::{Durability, write_atomic, write_atomic_with};
pub use beneath::Spot;
pub use dir::{create_dir, parent_of, require_dir, set_dir_group, set_dir_mode, space, sync_dir};
pub use error::{Error, NotOurs, Result};
pub use file::{
    close_to_others, create_new, open_existing, open_or_create, open_read, read_bounded, remove_file, stat,
    widen_like_parent,
};
pub use in_place::{append_line, append_raw, create_empty, overwrite};
pub use lock::LockFile;
pub use new_file::NewFile;
pub use printable::{printable, quoted, steers};
pub use random::{random_hex, random_u64};
pub use rename::{rename, rename_noreplace};
pub use secret::{SECRET_KEY, has_secret_key, without_query, without_secrets};
pub use tree::{Entry, Listing, children, list, occupied, occupied_tree, read_dir, remove, restrict_tree, share_tree};
