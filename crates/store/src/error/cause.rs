//! The exact faults of a directory, a descriptor or a file.

/// The reason why a directory cannot be used for a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The path is a symbolic link.
    #[error("is a symbolic link")]
    Symlink,
    /// The path is not a directory.
    #[error("is not a directory")]
    NotDirectory,
    /// Other users may write into the directory.
    #[error("is {by}-writable (mode {mode:04o}): others could plant files in it")]
    Writable {
        /// `world` or `group`.
        by: &'static str,
        /// The mode of the directory.
        mode: u32,
    },
}

/// The problem with a descriptor that was passed as the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDescriptor {
    /// The descriptor is 0, 1 or 2.
    #[error("is a standard stream")]
    Standard,
    /// The descriptor is not open in this process.
    #[error("is not an open descriptor")]
    Closed,
}

/// The problem with a lease file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadLeaseFile {
    /// The path is a symbolic link.
    #[error("is a symbolic link")]
    Symlink,
    /// The path is not a regular file.
    #[error("is not a regular file")]
    NotRegular,
    /// The descriptor refers to another file.
    #[error("is not the file that --lease-fd {fd} refers to")]
    Another {
        /// The descriptor.
        fd: i32,
    },
    /// The file belongs to another user.
    #[error("is owned by uid {uid}, but the store by uid {owner}")]
    Owner {
        /// The owner of the file.
        uid: u32,
        /// The owner of the store.
        owner: u32,
    },
}
